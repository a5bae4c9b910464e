"""Class files that labelling tools write into a Pascal VOC folder.

labelmap.txt        CVAT, Datumaro: `name:red,green,blue:parts:actions`; masks are images in these colours
class_names.txt     labelme: one name per line; masks store the position, not counting a first line __ignore__
"""

from collections.abc import Callable
from pathlib import Path

from PIL import Image

from trainer.data.mask_encoding import Color, MaskEncoding
from trainer.taxonomy import IGNORE, Taxonomy, TaxonomyError, distinct_colors

VOID: tuple[str, Color] = ("ignored", (224, 224, 192))
"""Datumaro lists the border of Pascal's objects as a class; palette images have this colour at index 255."""
IGNORED_NAME = "__ignore__"

Classes = tuple[Taxonomy, MaskEncoding]


def find_class_file(root: Path) -> Path | None:
    """The class file of a folder; None if it has none."""
    return next((root / name for name in READERS if (root / name).exists()), None)


def read_class_file(path: Path) -> Classes:
    """The classes of such a file. Raises TaxonomyError, which names the file."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
        return READERS[path.name]([line for line in lines if line], path.parent)
    except (OSError, UnicodeDecodeError, TaxonomyError) as error:
        raise TaxonomyError(f"{path}: {error}; correct it, or write a classes.toml, which comes before it") from error


def _labelmap(lines: list[str], root: Path) -> Classes:
    """Classes with colours. A class without one is in no mask; if none has one, they are Pascal's by position."""
    pairs = [_labelmap_line(line) for line in lines if not line.startswith("#")]
    if not any(color for _, color in pairs):
        pairs = [(name, color) for (name, _), color in zip(pairs, distinct_colors(len(pairs)), strict=True)]
    listed = [(value, name, color) for value, (name, color) in enumerate(pairs) if color and (name, color) != VOID]
    taxonomy = _taxonomy([(name, color) for _, name, color in listed])
    if _stores_ids(root):
        return taxonomy, MaskEncoding.from_values(
            {each[0]: index for index, each in enumerate(listed)}, (IGNORE,), IGNORE
        )
    ids: dict[Color, int] = {}
    for index, color in enumerate(taxonomy.colors):
        if ids.setdefault(color, index) != index:
            raise TaxonomyError(f"{taxonomy.names[ids[color]]!r} and {taxonomy.names[index]!r} have the same colour")
    return taxonomy, MaskEncoding.from_colors(ids, () if VOID[1] in ids else (VOID[1],), IGNORE)


def _stores_ids(root: Path) -> bool:
    """Whether the first mask is grey."""
    mask = next((root / "SegmentationClass").rglob("[!.]*.png"), None)
    try:
        with Image.open(mask or "") as image:
            return image.mode not in {"P", "RGB", "RGBA"}
    except OSError:
        return False  # reported when the mask is read for use


def _labelmap_line(line: str) -> tuple[str, Color | None]:
    name, *fields = line.rsplit(":", 3)
    if len(fields) != 3 or not name:
        raise TaxonomyError(f"{line!r} is not name:red,green,blue:parts:actions")
    if not fields[0]:
        return name, None
    try:
        red, green, blue = (int(part) for part in fields[0].split(","))
    except ValueError as error:
        raise TaxonomyError(f"{line!r} is not name:red,green,blue:parts:actions") from error
    return name, (red, green, blue)


def _class_names(lines: list[str], _root: Path) -> Classes:
    names = lines[1:] if lines[:1] == [IGNORED_NAME] else lines
    taxonomy = _taxonomy(list(zip(names, distinct_colors(len(names)), strict=True)))
    return taxonomy, MaskEncoding.identity(len(taxonomy), IGNORE)


def _taxonomy(pairs: list[tuple[str, Color]]) -> Taxonomy:
    return Taxonomy.from_list([{"name": name, "color": list(color)} for name, color in pairs])


READERS: dict[str, Callable[[list[str], Path], Classes]] = {"labelmap.txt": _labelmap, "class_names.txt": _class_names}
"""Reader of each file; the first that exists is used."""
