"""The folder of an attempt, in which its programs write: RUN/attempt-FENCE.

A new attempt renames the folder of the one before to its own name. A program of the earlier attempt that still runs,
for example because its worker hangs, fails at its next file, since its paths no longer exist.
"""

from __future__ import annotations

import shutil
from pathlib import Path

PREFIX = "attempt-"


def open_attempt(run_folder: Path, fence: int) -> Path:
    """Create the folder of the attempt with this number, with what the last earlier one left there."""
    own = run_folder / f"{PREFIX}{fence}"
    earlier = sorted((path for path in _attempts(run_folder) if _fence(path) < fence), key=_fence)
    if earlier and not own.exists():
        earlier.pop().rename(own)
    for path in earlier:
        shutil.rmtree(path, ignore_errors=True)
    own.mkdir(parents=True, exist_ok=True)
    _delete_temporary_files(own)
    return own


def close_attempts(run_folder: Path) -> None:
    """Keep the trainer's output of the last attempt of an ended run as RUN/train, and delete the attempts' folders."""
    for path in sorted(_attempts(run_folder), key=_fence, reverse=True):
        if (path / "train").exists() and not (run_folder / "train").exists():
            (path / "train").rename(run_folder / "train")
        shutil.rmtree(path, ignore_errors=True)


def _attempts(run_folder: Path) -> list[Path]:
    return [path for path in run_folder.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdecimal()]


def _fence(path: Path) -> int:
    return int(path.name.removeprefix(PREFIX))


def _delete_temporary_files(folder: Path) -> None:
    """Delete files that an earlier program may still have open: the next one must not write to the same file."""
    for path in list(folder.rglob(".*")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
