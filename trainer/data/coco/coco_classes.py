"""The classes of annotation files in COCO's format: COCO's own 80 things, or the categories that the files list.

Own categories become classes in the order of their ids; ROOT/classes.toml is written, or followed by name if it exists.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from unicodedata import normalize

from trainer.atomic_write import atomic_write
from trainer.data.classes_file import PUBLIC, public_classes, read_classes, write_classes
from trainer.data.coco.coco_annotations import AnnotationFile, Table
from trainer.data.dataset import DatasetError
from trainer.data.readers.file_layouts import CLASS_OF_THING, THING_IDS
from trainer.taxonomy import IGNORE, WIDE_IGNORE, Taxonomy, distinct_colors

BACKGROUND = "background"
LAST_ID = 200
"""COCO's last category id, of the panoptic stuff."""


@dataclass(frozen=True, slots=True)
class MaskValues:
    """What the masks store.

    Attributes:
        of_category: stored value by category id.
        background: stored where no annotation is.
        void: stored where the class is unknown.
        taxonomy: classes and colours, for the palette.
    """

    of_category: Mapping[int, int]
    background: int
    void: int
    taxonomy: Taxonomy


def coco_values(root: Path) -> MaskValues:
    """Values for COCO's categories: background and the 80 things; everything else is background."""
    of_category = dict.fromkeys(range(1, LAST_ID + 1), 0) | CLASS_OF_THING
    return MaskValues(of_category, 0, IGNORE, public_classes("coco", root)[0])


def mask_values(root: Path, files: Sequence[AnnotationFile], *, background: bool) -> MaskValues:
    """Values for the categories of the files; with `background`, pixels without annotation are the first class.

    Writes ROOT/classes.toml for own categories, unless it exists. Raises DatasetError or TaxonomyError if the files
    list different categories, or if classes.toml lacks one.
    """
    tables = _merged(files)
    if is_coco(tables):
        values = coco_values(root)
        return replace(values, of_category={key: CLASS_OF_THING.get(key, 0) for key in tables})
    used = frozenset().union(*(file.used for file in files))
    names = _class_names(tables, used)
    path = root / "classes.toml"
    if not path.exists():
        if any((root / "masks").glob("[!.]*.png")):
            raise DatasetError(f"{root / 'masks'}: has masks, but no {path} says what they store; remove the masks")
        _write_classes(path, [*([BACKGROUND] if background else ()), *names.values()])
    return _by_name(path, names, background=background)


def is_coco(tables: Mapping[int, Table]) -> bool:
    """Whether the things of a file are COCO's 80."""
    coco = read_classes(PUBLIC / "coco.toml")[0].names[1:]
    things = {key: table["name"] for key, table in tables.items() if table.get("isthing", 1)}
    return things == dict(zip(THING_IDS, coco, strict=True))


def _merged(files: Sequence[AnnotationFile]) -> dict[int, Table]:
    merged: dict[int, Table] = {}
    for file in files:
        for key, table in file.categories.items():
            if (name := merged.setdefault(key, table)["name"]) != table["name"]:
                raise DatasetError(
                    f"{file.path}: category {key} is {table['name']!r}, and {name!r} in {files[0].path.name}; give the "
                    "categories the same ids"
                )
    return dict(sorted(merged.items()))


def _class_names(tables: Mapping[int, Table], used: frozenset[int]) -> dict[int, str]:
    """Class name by category id; Roboflow's unused super-category is no class."""
    # Other tools repeat a category's own name there.
    groups = [group for table in tables.values() if (group := table.get("supercategory")) != table["name"]]
    names = {key: table["name"] for key, table in tables.items() if key in used or table["name"] not in groups}
    # As in a taxonomy.
    return {key: BACKGROUND if _is_background(name) else normalize("NFC", name) for key, name in names.items()}


def _is_background(name: str) -> bool:
    return name.strip("_").casefold() == BACKGROUND


def _write_classes(path: Path, names: Sequence[str]) -> None:
    # A category may be called background too.
    distinct = list(dict.fromkeys(names))
    ignore_index = IGNORE if len(distinct) <= IGNORE else WIDE_IGNORE
    with atomic_write(path) as file:
        write_classes(file, distinct, distinct_colors(len(distinct)), ignore_index, "prepare-coco")


def _by_name(path: Path, names: Mapping[int, str], *, background: bool) -> MaskValues:
    """Values by which classes.toml gives each category the class of its name."""
    taxonomy, encoding = read_classes(path)
    wanted = [*([BACKGROUND] if background else ()), *names.values()]
    if missing := sorted({name for name in wanted if name not in taxonomy.names}):
        listed = ", ".join(map(repr, missing))
        raise DatasetError(
            f"{path}: lacks the classes {listed} of the annotations; add them, or remove the file and masks"
        )
    if encoding.colors:
        raise DatasetError(f'{path}: masks = "colours", but prepare-coco writes ids; remove this line')
    stored = {index: value for value, index in reversed(encoding.id_of_value)}
    if taxonomy.ignore_index not in stored and not background:
        raise DatasetError(f"{path}: ignores no value, but segments may be missing; add ignore_values")
    of_name = {name: stored[taxonomy.names.index(name)] for name in wanted}
    of_category = {key: of_name[name] for key, name in names.items()}
    return MaskValues(of_category, of_name.get(BACKGROUND, 0), stored.get(taxonomy.ignore_index, 0), taxonomy)
