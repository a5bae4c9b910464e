"""Tell a full disk, a read-only data folder and an unreachable database from faults of the program."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.exc import DatabaseError, DBAPIError, InternalError, OperationalError

from service.errors import DatabaseUnwritable, MaskloopError, StorageFailed, StorageUnwritable

FULL = {errno.ENOSPC, errno.EDQUOT}
READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}
NO_FOLDER = {errno.EEXIST, errno.ENOTDIR}
REMEDY = "choose another folder (MASKLOOP_DATA_DIR, --data-dir)"
# Extended result codes of SQLite; on a full disk the file of its shared memory cannot grow.
SQLITE_FULL = ("SQLITE_FULL", "SQLITE_IOERR_SHMSIZE")
SQLITE_STATEMENT = "SQLITE_ERROR"
# What it makes of an exceeded quota, among others.
SQLITE_WRITE = "SQLITE_IOERR_WRITE"
SQLITE_READ_ONLY = ("SQLITE_READONLY", "SQLITE_CANTOPEN")
# PostgreSQL's disk_full and read_only_sql_transaction.
SQLSTATE_FULL, SQLSTATE_READ_ONLY = "53100", "25006"
# deadlock_detected, serialization_failure, lock_not_available
SQLSTATE_CONFLICTS = {"40P01", "40001", "55P03"}
RETRY_AFTER_S = 5


def storage_fault(error: BaseException, data_dir: Path) -> MaskloopError | None:
    """Return StorageUnwritable or StorageFailed if the storage is at fault, else None."""
    if isinstance(error, OSError):
        return _file_fault(error, data_dir)
    # `DatabaseError` itself: the file is no database, or damaged. Its other subclasses are faults of the program.
    if isinstance(error, OperationalError | InternalError) or type(error) is DatabaseError:
        return _database_fault(error, data_dir)
    return None


@contextmanager
def storage_faults(data_dir: Path) -> Iterator[None]:
    """Raise the fault that `storage_fault` finds in an error of the block."""
    try:
        yield
    except (OSError, DBAPIError) as error:
        fault = storage_fault(error, data_dir)
        if fault is None:
            raise
        raise fault from error


def reason_of(error: BaseException) -> str:
    """Return the first line of an error, for operators: it may name hosts and paths, but no SQL."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return next(iter(str(cause).splitlines()), type(error).__name__)


def _file_fault(error: OSError, data_dir: Path) -> MaskloopError | None:
    folder = data_dir.absolute()
    path = Path(error.filename).absolute() if isinstance(error.filename, str) else None
    # Folders above it may have to be created.
    contains_folder = path is not None and folder.is_relative_to(path)
    if path and not (contains_folder or path.is_relative_to(folder)):
        return None
    if error.errno in FULL:
        return _full(data_dir)
    if error.errno in READ_ONLY:
        reason = str(error.strerror)
        return _unreadable(path, reason) if path and _is_unreadable_file(path) else _read_only(data_dir, reason)
    # Below the folder, the program has chosen a wrong name.
    if error.errno in NO_FOLDER and contains_folder:
        return StorageUnwritable(f"{data_dir} is not a folder: {REMEDY}.")
    return None


def _is_unreadable_file(path: Path) -> bool:
    return os.path.isfile(path) and not os.access(path, os.R_OK)  # noqa: PTH113 - `Path.is_file` raises here


def _unreadable(path: Path, reason: str) -> StorageFailed:
    return StorageFailed(
        f"The file {path} cannot be read ({reason}): give the user of the service the permission to read it.",
        retry_after_s=RETRY_AFTER_S,
    )


def _database_fault(error: DBAPIError, data_dir: Path) -> MaskloopError | None:
    name = getattr(error.orig, "sqlite_errorname", "")
    state = getattr(error.orig, "sqlstate", None)
    if name == SQLITE_STATEMENT:
        return None
    if name.startswith(SQLITE_FULL):
        return _full(data_dir)
    if name == SQLITE_WRITE or (name.startswith(SQLITE_READ_ONLY) and not os.access(data_dir, os.W_OK)):
        return _read_only(data_dir, str(error.orig))
    if state == SQLSTATE_FULL:
        return DatabaseUnwritable("The database is full: free space on the disk of its server.")
    if state == SQLSTATE_READ_ONLY:
        return DatabaseUnwritable("The database is read-only: point MASKLOOP_DATABASE_URL to its primary server.")
    reason = "cannot be reached: check that it runs, and MASKLOOP_DATABASE_URL. The log has the reason."
    if state in SQLSTATE_CONFLICTS:
        reason = "gave precedence to another request that changed the same data: try again."
    return StorageFailed(f"The database {reason}", retry_after_s=RETRY_AFTER_S)


def _full(data_dir: Path) -> StorageUnwritable:
    return StorageUnwritable(f"The data folder {data_dir.absolute()} is full: free space on its disk, or {REMEDY}.")


def _read_only(data_dir: Path, reason: str) -> StorageUnwritable:
    return StorageUnwritable(
        f"The data folder {data_dir.absolute()} cannot be written ({reason}): give the user of the service the "
        f"permission to write, and a sufficient quota, or {REMEDY}."
    )
