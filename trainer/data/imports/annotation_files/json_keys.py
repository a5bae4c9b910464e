"""Keys of JSON files, from their first and last bytes: files of annotations can have hundreds of megabytes."""

import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from trainer.data.imports.source.source_folder import SourceFolder

ENDS_BYTES = 1 << 16
"""Read from each end of a file."""
KEY = re.compile(rb'"(\w+)"\s*:')

Keys = frozenset[str]
"""Names of keys at any depth, and "[" or "{", the first character of the file."""


def files_with(source: SourceFolder, fits: Callable[[Keys], bool]) -> list[str]:
    """JSON files of the source whose keys fit, sorted."""
    return [file for file in source.below(".", (".json",)) if fits(_keys_now(source.path(file)))]


def _keys_now(path: Path) -> Keys:
    status = path.stat()
    return _keys(path, status.st_size, status.st_mtime_ns)


# Each format looks at each file.
@lru_cache(maxsize=1 << 18)
def _keys(path: Path, size: int, _modified_ns: int) -> Keys:
    with path.open("rb") as file:
        start = file.read(ENDS_BYTES)
        if size > 2 * ENDS_BYTES:
            file.seek(size - ENDS_BYTES)
        end = file.read(ENDS_BYTES)
    first = start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    keys = {match.decode() for part in (start, end) for match in KEY.findall(part)}
    return frozenset(keys | {first.decode("latin-1")})
