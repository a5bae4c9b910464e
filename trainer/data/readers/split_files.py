"""Split files: ROOT/splits/*.txt, or the .txt files of another folder.

Each line names an image in one of three forms:

    NAME                                                            the image's name in the layout
    JPEGImages/2007_000032.jpg                                      a path, relative to the data set's root
    JPEGImages/2007_000032.jpg SegmentationClass/2007_000032.png    the path with that of its mask, or with None

The last form is that of the lists published with UniMatch (arXiv 2208.09910, 2410.10777).
"""

from collections import Counter
from pathlib import Path

from trainer.data.dataset import DatasetError

NO_MASK = "None"
"""The published lists' entry for an image without a mask."""

SPELLINGS = {"labelled": "labeled", "unlabelled": "unlabeled", "labeled": "labelled", "unlabeled": "unlabelled"}
"""Our spelling, and that of the published lists."""


def find_split_file(folder: Path, name: str) -> Path | None:
    """FOLDER/NAME.txt, in either spelling of "labelled", if one exists."""
    path = folder / f"{name}.txt"
    respelled = path.with_stem(SPELLINGS.get(path.stem, path.stem))
    return next((each for each in (path, respelled) if each.is_file()), None)


def split_names(folder: Path) -> set[str]:
    """Names of the split files in a folder, at any depth, except hidden ones."""
    found = (path.relative_to(folder) for path in folder.rglob("*.txt"))
    return {path.with_suffix("").as_posix() for path in found if not any(part.startswith(".") for part in path.parts)}


def read_split_file(path: Path) -> list[str]:
    """Lines of a split file. Raises DatasetError if it cannot be read, is empty, repeats a line, or has backslashes."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: cannot be read ({error}); write one image name per line, in UTF-8") from error
    if not lines:
        raise DatasetError(f"{path}: is empty; write one image name per line")
    if windows := [line for line in lines if "\\" in line]:
        raise DatasetError(f"{path}: {windows[0]!r} contains a backslash; write / between folders")
    if repeated := [line for line, count in Counter(lines).items() if count > 1]:
        raise DatasetError(f"{path}: {repeated[0]!r} is listed twice; remove one of the lines")
    return lines


def parse_line(line: str) -> tuple[str, str]:
    """Image and mask ("" if missing), split at the last space. A path with spaces must have a mask."""
    image, *mask = line.rsplit(maxsplit=1)
    return image, mask[0] if mask else ""
