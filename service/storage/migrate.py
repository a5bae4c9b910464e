"""Create or migrate the database when a process starts; safe if several start at the same time.

An empty database gets its tables directly, since importing Alembic would take most of the start time.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, insert, inspect, text

import service.storage.analysis_tables  # noqa: F401 - adds its tables to Base
from service.storage.retention_tables import OperatingTime
from service.storage.tables import Base, Pool

SCRIPTS = Path(__file__).parent / "migrations"

# Revision of the newest file in migrations/versions; a test compares them.
NEWEST_REVISION = "0012"

# Arbitrary: other programs on the same PostgreSQL are unlikely to use it.
ADVISORY_LOCK = 6_275_717_101


def migrate(engine: Engine, lock_file: Path) -> None:
    """Create the tables or apply the missing migrations, in one transaction; other processes wait for `lock_file`."""
    with _locked(lock_file):
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
def _locked(lock_file: Path) -> Iterator[None]:
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    with lock_file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    return revision


def _create(connection: Connection) -> None:
    Base.metadata.create_all(connection)
    connection.execute(insert(Pool))
    connection.execute(insert(OperatingTime))
    # Alembic would create the same table.
    connection.execute(
        text(
            "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, "
            "CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
        )
    )
    connection.execute(text("INSERT INTO alembic_version VALUES (:revision)"), {"revision": NEWEST_REVISION})


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Apply the missing migrations up to a revision, with Alembic."""
    from alembic import command  # noqa: PLC0415 - slow to import and rarely needed
    from alembic.config import Config  # noqa: PLC0415

    config = Config(attributes={"connection": connection})
    # Alembic interpolates percent signs.
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    command.upgrade(config, revision)
