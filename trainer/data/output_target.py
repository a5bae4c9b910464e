"""Write a folder or a file that gets its name when it is complete, so that an interrupted one is not taken for it."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer.user_error import UserError

UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR}


class TargetError(UserError):
    """The result cannot be written; the message names the target and the remedy."""


def is_archive(target: Path) -> bool:
    """Whether the target is a ZIP archive, by its name."""
    return target.suffix.lower() == ".zip"


def check_target(target: Path) -> None:
    """Raise TargetError unless the target is a new file, or a folder that is new or empty."""
    if is_archive(target) and target.exists():
        raise TargetError(f"{target}: exists; remove it, or give another name")
    if not is_archive(target) and target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise TargetError(f"{target}: is not empty; remove it, or give another --out")


@contextmanager
def work_folder(target: Path) -> Iterator[Path]:
    """Yield a new folder beside the target, and delete it; one that a killed process left is replaced.

    Raises TargetError if the disk is full, or cannot be written.
    """
    work = target.absolute().with_name(f".{target.name}.partial")
    try:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        yield work
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        reason = os.strerror(error.errno)
        raise TargetError(f"{target}: cannot be written ({reason}); free space, or choose another folder") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def complete(folder: Path, target: Path) -> None:
    """Give a finished folder the name of the target, which may be an empty folder."""
    if target.exists():
        target.rmdir()  # Windows replaces no folder
    folder.replace(target)
