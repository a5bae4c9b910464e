"""The source's files, listed once. A file that an annotation names is looked up in this list and nowhere else."""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from trainer.data.imports.source.source_error import SourceError
from trainer.data.readers.directory_listing import SUFFIXES

MAX_DESCENTS = 4


class SourceFolder:
    """All files below a folder, except hidden ones, as paths relative to it.

    An outer folder that has nothing but one other folder is left out: archives often have one.

    Attributes:
        title: what messages and import.json call the source: the name of the folder or archive.
        root: the folder that holds the files.
        files: paths relative to `root`, with "/" between folders, sorted.
        used: what readers used a file as, such as "list of classes", for import.json; images and labels are not in it.
    """

    def __init__(self, root: Path, title: str = "") -> None:
        if not root.is_dir():
            raise SourceError(f"{root}: no such folder or ZIP archive; give the folder that holds images and labels")
        self.title = title or root.resolve().name
        self.root = _descend(root)
        self.files = sorted(_files(self.root))
        self.used: dict[str, str] = {}
        if not self.files:
            raise SourceError(f"{root}: is empty; give the folder that holds images and labels")
        self._by_name: dict[str, list[str]] = defaultdict(list)
        for path in self.files:
            self._by_name[_key(PurePosixPath(path).name)].append(path)
        self._listed = set(self.files)
        self._folders = {parent.as_posix() for path in self.files for parent in PurePosixPath(path).parents}

    def path(self, file: str) -> Path:
        """The file on disk. Raises KeyError if it is not one of `files`."""
        if file not in self._listed:
            raise KeyError(file)
        return self.root / file

    def relative(self, path: Path) -> str:
        """The file as one of `files`."""
        return path.relative_to(self.root).as_posix()

    def has_folder(self, folder: str) -> bool:
        """Whether files are in the folder, or below it."""
        return folder in self._folders

    def folders(self) -> list[str]:
        """All folders with files in or below them, sorted, and "." for the root."""
        return sorted(self._folders)

    def below(self, folder: str, suffixes: tuple[str, ...] = ()) -> list[str]:
        """Files in a folder at any depth; with `suffixes`, which are in lower case, only those that have one."""
        start = "" if folder in {"", "."} else f"{folder.rstrip('/')}/"
        return [
            path
            for path in self.files
            if path.startswith(start) and (not suffixes or PurePosixPath(path).suffix.lower() in suffixes)
        ]

    def images(self, folder: str = ".") -> list[str]:
        """Images in a folder, at any depth."""
        return self.below(folder, SUFFIXES)

    def match(self, named: str, near: str = "") -> str | None:
        """The file that a path or URL in an annotation means, found by its base name and as many folders as match.

        Args:
            named: as it is written: any separators, absolute, of another machine, a URL with a query.
            near: the annotation file, relative to the root: of several files, one in the same folder is meant.

        Returns:
            None if there is no such file, or if it could be several.
        """
        parts = _plain_parts(named)
        found = self._by_name.get(_key(parts[-1]), []) if parts else []
        if len(found) < 2:
            return found[0] if found else None
        folder = PurePosixPath(near).parent
        rank = {path: (_common_end(path, parts), PurePosixPath(path).parent == folder) for path in found}
        best = max(rank.values())
        ranked = [path for path in found if rank[path] == best]
        return ranked[0] if len(ranked) == 1 else None

    def named(self, name: str) -> list[str]:
        """Files of this base name, in any folder; upper and lower case are equal."""
        return self._by_name.get(_key(name), [])


def _descend(root: Path) -> Path:
    for _ in range(MAX_DESCENTS):
        entries = [entry for entry in root.iterdir() if not _is_hidden(entry.name)]
        if len(entries) != 1 or not entries[0].is_dir():
            break
        root = entries[0]
    return root


def _files(root: Path) -> Iterator[str]:
    # Links to folders are not followed: they may lead out of the source, or back into it.
    for folder, folders, names in os.walk(root):
        folders[:] = [each for each in folders if not _is_hidden(each)]
        below = PurePosixPath(Path(folder).relative_to(root).as_posix())
        yield from ((below / name).as_posix() for name in names if not _is_hidden(name))


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _plain_parts(named: str) -> tuple[str, ...]:
    """Folders and base name of a path or URL."""
    if re.match(r"[a-zA-Z][\w+.-]+://", named):
        named = unquote(re.split(r"[?#]", named)[0].partition("://")[2])
    return tuple(part for part in re.split(r"[\\/]+", named) if part not in {"", ".", ".."})


def _common_end(path: str, parts: tuple[str, ...]) -> int:
    """Number of last parts that are equal."""
    count = 0
    for ours, theirs in zip(reversed(PurePosixPath(path).parts), reversed(parts), strict=False):
        if _key(ours) != _key(theirs):
            break
        count += 1
    return count
