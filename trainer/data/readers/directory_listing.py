"""Find files by name, listing each folder once: splits of 100 000 names are common.

Paths are text: objects of `Path` would take most of the time.
"""

# ruff: noqa: PTH110, PTH112, PTH118, PTH120, PTH122, PTH208

import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif")
"""File name extensions of images, in either case."""

Names = dict[str, list[tuple[str, str]]]
"""(name or stem, file name) by the name or stem in composed form and lower case."""


class DirectoryListing:
    """Files as they are named on disk. All Unicode forms of a name are equal: macOS writes é as two characters."""

    def __init__(self) -> None:
        self._folders: dict[str, str | None] = {}
        self._names: dict[str, Names] = {}
        self._stems: dict[str, Names] = {}

    def find(self, path: str) -> str | None:
        """The file or folder of this name; None if there is none."""
        parent, key = os.path.split(path)
        folder = self._folder(parent)
        if folder is None:
            return None
        if folder not in self._names:
            self._names[folder] = _by_key((name, name) for name in _list(folder))
        names = _equal(key, self._names[folder], lambda _: os.path.exists(path))
        return os.path.join(folder, names[0]) if names else None

    def images(self, path: str) -> list[str]:
        """All images with this name plus an extension."""
        parent, key = os.path.split(path)
        folder = self._folder(parent)
        if folder is None:
            return []
        if folder not in self._stems:
            parts = [(name, *os.path.splitext(name)) for name in _list(folder)]
            self._stems[folder] = _by_key((stem, name) for name, stem, end in parts if end.lower() in SUFFIXES)
        names = _equal(key, self._stems[folder], lambda name: os.path.exists(path + os.path.splitext(name)[1]))
        return [os.path.join(folder, name) for name in names]

    def _folder(self, folder: str) -> str | None:
        if folder not in self._folders:
            exists = folder == os.path.dirname(folder) or os.path.isdir(folder)
            self._folders[folder] = folder if exists else self.find(folder)
        return self._folders[folder]


def files_below(folder: Path) -> Iterator[Path]:
    """All images in the folder, at any depth, except hidden ones."""
    for path in folder.rglob("*"):
        if path.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield path


def _list(folder: str) -> list[str]:
    return sorted(os.listdir(folder or os.curdir)) if os.path.isdir(folder or os.curdir) else []


def _by_key(pairs: Iterable[tuple[str, str]]) -> Names:
    names: Names = defaultdict(list)
    for key, name in pairs:
        names[_composed(key).casefold()].append((key, name))
    return dict(names)


def _equal(key: str, names: Names, exists: Callable[[str], bool]) -> list[str]:
    """File names whose key is equal; first those of the same Unicode form."""
    composed = _composed(key)
    similar = names.get(composed.casefold(), [])
    if len(similar) == 1 and similar[0][0] == key:
        return [similar[0][1]]
    equal = [pair for pair in similar if _composed(pair[0]) == composed]
    # A file system that ignores case finds a similar name.
    found = equal or [pair for pair in similar if exists(pair[1])]
    return [name for _, name in sorted(found, key=lambda pair: pair[0] != key)]


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)
