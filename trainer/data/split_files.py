"""Split files: ROOT/splits/*.txt, or the .txt files of another folder.

Each line names an image in one of three forms:

    NAME                                                            the image's name in the layout
    JPEGImages/2007_000032.jpg                                      a path, relative to the root of the data set
    JPEGImages/2007_000032.jpg SegmentationClass/2007_000032.png    the path with that of its mask, or with None

The last form is that of the lists published with UniMatch (arXiv 2208.09910, 2410.10777), which work unchanged.
"""

from pathlib import Path
from typing import NamedTuple

from trainer.data.dataset import DatasetError

NO_MASK = "None"
"""The published lists write this for an image without a mask."""

SPELLINGS = (("unlabelled", "unlabeled"), ("labelled", "labeled"))
"""Our spelling, and that of the published lists."""


class Line(NamedTuple):
    """Paths of image and mask in a line; `mask` is "" if the line has one path only."""

    image: str
    mask: str


def find_split_file(folder: Path, name: str) -> Path | None:
    """FOLDER/NAME.txt, in either spelling of "labelled"; None if neither exists."""
    for spelling in dict.fromkeys((name, *_respelled(name))):
        path = folder / f"{spelling}.txt"
        if path.is_file():
            return path
    return None


def split_names(folder: Path) -> set[str]:
    """Names of all split files in the folder, at any depth."""
    return {path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.txt")}


def read_split_file(path: Path) -> list[str]:
    """Lines of a split file. Raises DatasetError if it cannot be read, is empty, or repeats a line."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: cannot be read ({error}); write one image name per line, in UTF-8") from error
    if not lines:
        raise DatasetError(f"{path}: is empty; write one image name per line")
    seen: set[str] = set()
    for line in lines:
        if line in seen:
            raise DatasetError(f"{path}: {line!r} is listed twice; remove one of the lines")
        seen.add(line)
    return lines


def parse_line(line: str) -> Line:
    """Split a line at its last space into image and mask. A path with spaces and no mask must not be passed here."""
    image, *mask = line.rsplit(maxsplit=1)
    return Line(image, mask[0] if mask else "")


def _respelled(name: str) -> list[str]:
    *folders, last = name.split("/")
    return ["/".join((*folders, pair[1 - side])) for pair in SPELLINGS for side in (0, 1) if last == pair[side]]
