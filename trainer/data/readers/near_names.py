"""Find the file that a name in a list means, if its upper and lower case or its folder is another one."""

import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from trainer.data.readers.directory_listing import SUFFIXES
from trainer.data.readers.split_files import parse_line


def near_name(missing: Sequence[str], images: Iterable[Path], root: Path, name_end: str = "") -> str | None:
    """Remedy that names the image which the first possible of the missing lines seems to mean.

    Args:
        missing: lines of a split file whose image does not exist.
        images: all images of the data set.
        root: of the data set.
        name_end: what a file name has after the name in a list, apart from the extension.
    """
    wanted = {_key(name): line for line in reversed(missing) for name in _names(line)}
    found: dict[str, str] = {}
    for image in images:
        path = image.relative_to(root)
        for count in range(1, len(path.parts) + 1):
            key = _key(PurePosixPath(*path.parts[-count:]).as_posix()).removesuffix(name_end.casefold())
            if key in wanted:
                found[wanted[key]] = min(path.as_posix(), found.get(wanted[key], path.as_posix()))
    line = next((line for line in missing if line in found), None)
    if line is None:
        return None
    return f"{line!r} may mean {found[line]}: write names with the upper and lower case and the folders of the files"


def _names(line: str) -> tuple[str, ...]:
    image, mask = parse_line(line)
    return (line, image) if mask and PurePosixPath(image).suffix.lower() in SUFFIXES else (line,)


def _key(name: str) -> str:
    path = PurePosixPath(unicodedata.normalize("NFC", name).casefold())
    return path.with_suffix("").as_posix() if path.suffix in SUFFIXES else path.as_posix()
