"""Split files: ROOT/splits/*.txt, or those of another folder.

One image a line, in one of three forms:

    NAME                                                            as the layout knows its images
    JPEGImages/2007_000032.jpg                                      a path, relative to the data set's root
    JPEGImages/2007_000032.jpg SegmentationClass/2007_000032.png    with its mask, or None

The last is the form of the lists that UniMatch (arXiv 2208.09910, 2410.10777) published; they are taken as they are.
"""

from pathlib import Path
from typing import NamedTuple

from trainer.data.dataset import DatasetError

NO_MASK = "None"
"""What the published lists write where there is no mask."""

SPELLINGS = (("unlabelled", "unlabeled"), ("labelled", "labeled"))
"""Ours, and that of the published lists."""


class Line(NamedTuple):
    """A line as a path with a mask's: `mask` is "" where the line has one path alone."""

    image: str
    mask: str


def find_list(folder: Path, name: str) -> Path | None:
    """FOLDER/NAME.txt, in either spelling of "labelled"; None where there is neither."""
    for spelling in dict.fromkeys((name, *_respelled(name))):
        path = folder / f"{spelling}.txt"
        if path.is_file():
            return path
    return None


def list_names(folder: Path) -> set[str]:
    """The names of all lists in the folder, at any depth."""
    return {path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.txt")}


def read_list(path: Path) -> list[str]:
    """The lines of a split file. Raises DatasetError: it cannot be read, is empty, or has a line twice."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: cannot be read ({error}); it lists one image name a line, in UTF-8") from error
    if not lines:
        raise DatasetError(f"{path}: is empty; list one image name a line")
    seen: set[str] = set()
    for line in lines:
        if line in seen:
            raise DatasetError(f"{path}: {line!r} is listed twice; take one out")
        seen.add(line)
    return lines


def parse_line(line: str) -> Line:
    """The two paths of a line; a single one may hold blanks only where no mask follows it."""
    image, *mask = line.rsplit(maxsplit=1)
    return Line(image, mask[0] if mask else "")


def _respelled(name: str) -> list[str]:
    *folders, last = name.split("/")
    return ["/".join((*folders, pair[1 - side])) for pair in SPELLINGS for side in (0, 1) if last == pair[side]]
