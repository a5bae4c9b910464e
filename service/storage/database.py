"""The database: one engine, and the two kinds of transaction that the rest of the service opens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry

# A writer waits this long for another process's transaction before it fails with "database is locked".
SQLITE_BUSY_TIMEOUT_MS = 15_000


class Database:
    """Typed access to one database. Safe to share between threads; each transaction has a connection of its own."""

    def __init__(self, url: str) -> None:
        self.engine = open_engine(url)
        self._read = sessionmaker(self.engine, expire_on_commit=False)
        self._write = sessionmaker(self.engine.execution_options(maskloop_write=True), expire_on_commit=False)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction that only reads: one consistent view. Rows stay usable after it."""
        with self._read.begin() as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that may write: committed at the end, rolled back on an error.

        On SQLite it takes the write lock at its start, so what it read is still true when it writes.
        """
        with self._write.begin() as session:
            # A session begins with its first statement otherwise, and the lock would come as late.
            session.connection()
            yield session

    def close(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()


def open_engine(url: str) -> Engine:
    """An engine with the settings that this service relies on.

    Args:
        url: SQLAlchemy URL; `sqlite:///file` or a server such as `postgresql+psycopg://...`.
    """
    if make_url(url).get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True)
    engine = create_engine(url, connect_args={"check_same_thread": False})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _entry: ConnectionPoolEntry) -> None:
    # None: sqlite3 opens no transactions behind our back; `_begin_sqlite` does it.
    connection.isolation_level = None
    cursor = connection.cursor()
    # First, since changing the journal mode may itself have to wait for another process.
    cursor.execute(f"PRAGMA busy_timeout = {SQLITE_BUSY_TIMEOUT_MS}")
    # Readers and one writer at a time do not block each other: API and worker share this file.
    cursor.execute("PRAGMA journal_mode = WAL")
    # In WAL mode NORMAL loses at most the last transactions in a power cut, and never corrupts.
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    write = connection.get_execution_options().get("maskloop_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
