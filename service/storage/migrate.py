"""Bring a database to the newest schema when a process starts; safe when several start at one moment.

An empty database gets the tables as they are now; an older one goes through Alembic's migrations. That both end at the
same schema, to the letter, is a test. The shortcut is for the start: Alembic takes longer to import than the rest of
what the service does before it is ready.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

from service.storage.tables import Base

SCRIPTS = Path(__file__).parent / "migrations"

# Kept by hand beside the newest file in migrations/versions: a test compares.
NEWEST_REVISION = "0002"

# Any number that no other program on the same PostgreSQL uses.
ADVISORY_LOCK = 6_275_717_101


def migrate(engine: Engine, lock_file: Path) -> None:
    """Apply the migrations that are missing, all in one transaction.

    Args:
        engine: The database.
        lock_file: Beside an SQLite database; held while migrating, so that one process works and the others wait.
    """
    with _one_at_a_time(lock_file):
        with engine.connect() as connection:
            if _revision(connection) == NEWEST_REVISION:
                return
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})"))
            if inspect(connection).get_table_names():
                upgrade(connection)
            else:
                _create(connection)


@contextmanager
def _one_at_a_time(lock_file: Path) -> Iterator[None]:
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    with lock_file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield  # Closing the file gives the lock back, as the end of the process would.


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    return revision


def _create(connection: Connection) -> None:
    Base.metadata.create_all(connection)
    # What Alembic itself would have made.
    connection.execute(
        text(
            "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, "
            "CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
        )
    )
    connection.execute(text("INSERT INTO alembic_version VALUES (:revision)"), {"revision": NEWEST_REVISION})


def upgrade(connection: Connection) -> None:
    """Apply the migrations that are missing, from whatever revision the database has."""
    from alembic import command  # noqa: PLC0415 - slow to import, and seldom needed
    from alembic.config import Config  # noqa: PLC0415

    config = Config(attributes={"connection": connection})
    # Alembic reads the options as an ini file does, where a percent sign has to be doubled.
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    command.upgrade(config, "head")
