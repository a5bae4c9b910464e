"""Database access: one engine, with read and write transactions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import RLock
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, func, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry

from service.errors import StorageFailed

# Time that a writer waits for another before it fails with "database is locked".
SQLITE_BUSY_TIMEOUT_MS = 15_000
# Longer than any transaction of this service waits for files between two statements.
POSTGRESQL_IDLE_TIMEOUT_MS = 60_000


class Database:
    """Thread-safe access; each transaction has its own connection."""

    def __init__(self, url: str | URL) -> None:
        self.engine = open_engine(url)
        # SQLite makes a second writer sleep and try again; threads of one process take turns without that.
        self._turn = RLock() if self.engine.dialect.name == "sqlite" else nullcontext()
        self._read = sessionmaker(self.engine, expire_on_commit=False)
        self._write = sessionmaker(self.engine.execution_options(maskloop_write=True), expire_on_commit=False)

    def read(self) -> AbstractContextManager[Session]:
        """Open a read transaction with a consistent view. Rows stay usable after it."""
        return self._read.begin()

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Open a write transaction: committed at the end, rolled back on an error."""
        with self._turn, self._write.begin() as session:
            # SQLite locks now, not at the first statement: what is read stays true until the write.
            session.connection()
            yield session

    def lock(self, session: Session, name: str) -> None:
        """Lock a name, such as that of a blob, until the end of a write transaction: row and files change together.

        With SQLite, a write transaction excludes every other one.
        """
        if self.engine.dialect.name != "sqlite":
            key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)
            session.execute(select(func.pg_advisory_xact_lock(key)))

    def close(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()


def open_engine(url: str | URL) -> Engine:
    """Create an engine for `sqlite:///file`, or a server such as `postgresql+psycopg://...`.

    Raises StorageFailed if the URL is invalid, or the driver of the database is not installed.
    """
    try:
        if make_url(url).get_backend_name() != "sqlite":
            engine = create_engine(url, pool_pre_ping=True)
            if engine.dialect.name == "postgresql":
                event.listen(engine, "connect", _prepare_postgresql)
            return engine
        engine = create_engine(url, connect_args={"check_same_thread": False})
    except ImportError as error:
        raise StorageFailed(
            f"The driver of MASKLOOP_DATABASE_URL is not installed ({error}): install it; for PostgreSQL, run "
            "`uv pip install '.[postgresql]'` and write postgresql+psycopg://..."
        ) from None
    except (ArgumentError, ValueError) as error:
        raise StorageFailed(
            f"MASKLOOP_DATABASE_URL is not valid ({error}): write postgresql+psycopg://USER:PASSWORD@HOST/DATABASE, or "
            "leave it empty for SQLite."
        ) from None
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_postgresql(connection: Any, _entry: ConnectionPoolEntry) -> None:
    # A process that hangs within a transaction must not keep its row locks: others take over its run.
    cursor = connection.cursor()
    cursor.execute(f"SET idle_in_transaction_session_timeout = {POSTGRESQL_IDLE_TIMEOUT_MS}")
    cursor.close()
    connection.commit()


def _prepare_sqlite(connection: Any, _entry: ConnectionPoolEntry) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    # First, since the next statement may have to wait.
    cursor.execute(f"PRAGMA busy_timeout = {SQLITE_BUSY_TIMEOUT_MS}")
    # Readers and the writer do not block each other: API and worker share this file.
    cursor.execute("PRAGMA journal_mode = WAL")
    # Flush each transaction: NORMAL would lose the last ones in a power cut, and clients rely on what was acknowledged.
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    write = connection.get_execution_options().get("maskloop_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
