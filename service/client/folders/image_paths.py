"""Find the images that files, folders and patterns name."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from service.client.wrong_usage import WrongUsage

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif")


@dataclass(frozen=True, slots=True)
class FoundImage:
    """An image file, and its name below the folder that was given."""

    path: Path
    name: PurePath


def find_images(given: Sequence[str], *, outside: Path | None = None) -> list[FoundImage]:
    """Find images: files as they are, folders with their subfolders, patterns such as `photos/*.jpg`.

    Folders are searched for the suffixes of images; hidden files and the folder `outside` are left out. Raises
    WrongUsage if one of `given` names no image.
    """
    found: dict[Path, FoundImage] = {}
    for text in given:
        path = Path(text)
        images = list(_below(path, outside) if path.is_dir() else _matching(path, text))
        if not images:
            what = f"no image ({', '.join(SUFFIXES)})" if path.is_dir() else "no such file or folder"
            raise WrongUsage(f"{text}: {what}; give image files, folders or patterns.")
        for image in images:
            found.setdefault(image.path.resolve(), image)
    return list(found.values())


def _below(folder: Path, outside: Path | None) -> Iterator[FoundImage]:
    left_out = outside.resolve() if outside else None
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in name.parts)
        if hidden or path.suffix.lower() not in SUFFIXES or not path.is_file():
            continue
        if left_out is None or left_out == folder.resolve() or left_out not in path.resolve().parents:
            yield FoundImage(path, name)


def _matching(path: Path, text: str) -> Iterator[FoundImage]:
    if path.is_file():
        yield FoundImage(path, PurePath(path.name))
        return
    for match in sorted(map(Path, glob.glob(text, recursive=True))):  # noqa: PTH207 - the pattern may be absolute
        if match.is_file() and match.suffix.lower() in SUFFIXES:
            yield FoundImage(match, PurePath(match.name))
