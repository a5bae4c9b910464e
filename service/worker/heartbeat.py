"""Heartbeat of a worker: a row that says that it is alive and whether it can train."""

from __future__ import annotations

import os
import socket
import subprocess
from datetime import timedelta

import structlog
from sqlalchemy import delete

from service.storage.database import Database
from service.storage.tables import Worker, utc_now

log = structlog.stdlib.get_logger(__name__)

REQUIRED_PACKAGES = ("trainer", "exporter", "torch", "timm", "safetensors", "onnx", "onnxscript")
# Find the packages without importing them: importing torch takes seconds.
PROBE = "import importlib.util as u, sys; sys.exit(not all(u.find_spec(n) for n in sys.argv[1:]))"
PROBE_TIMEOUT_S = 60
# Rows of killed workers are deleted after this time.
EXPIRY = timedelta(days=1)


def can_train(python: str) -> bool:
    """Whether an interpreter has the trainer, the exporter and their dependencies."""
    try:
        found = subprocess.run(
            [python, "-c", PROBE, *REQUIRED_PACKAGES], check=False, timeout=PROBE_TIMEOUT_S, capture_output=True
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("cannot run the trainer's interpreter", python=python, reason=str(error))
        return False
    return found.returncode == 0


class WorkerHeartbeat:
    """The worker row of this process."""

    def __init__(self, database: Database, *, can_train: bool) -> None:
        self._database = database
        self._can_train = can_train
        self._host, self._pid = socket.gethostname(), os.getpid()
        self._id = f"{self._host}:{self._pid}"

    def beat(self) -> None:
        """Record that this worker is alive, and delete expired rows."""
        row = Worker(id=self._id, seen_at=utc_now(), can_train=self._can_train, pid=self._pid, host=self._host)
        with self._database.write() as session:
            session.merge(row)
            session.execute(delete(Worker).where(Worker.seen_at < utc_now() - EXPIRY))

    def remove(self) -> None:
        """Delete the row, on a clean shutdown."""
        with self._database.write() as session:
            session.execute(delete(Worker).where(Worker.id == self._id))
