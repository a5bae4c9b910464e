"""That this worker is alive, and whether it can train: a row which the policy reads."""

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

NEEDED = ("trainer", "exporter", "torch", "timm", "safetensors", "onnx", "onnxscript")
# Looks for the packages without importing them: torch alone would take seconds.
PROBE = "import importlib.util as u, sys; sys.exit(not all(u.find_spec(n) for n in sys.argv[1:]))"
PROBE_TIMEOUT_S = 60
# Rows of workers that were killed; nobody else removes them.
FORGET_AFTER = timedelta(days=1)


def can_train(python: str) -> bool:
    """Whether an interpreter finds the trainer, the exporter and what they import."""
    try:
        found = subprocess.run(
            [python, "-c", PROBE, *NEEDED], check=False, timeout=PROBE_TIMEOUT_S, capture_output=True
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("the trainer's interpreter does not run", python=python, because=str(error))
        return False
    return found.returncode == 0


class WorkerHeartbeat:
    """The row of this process."""

    def __init__(self, database: Database, *, can_train: bool) -> None:
        self._database = database
        self._can_train = can_train
        self._host, self._pid = socket.gethostname(), os.getpid()
        self._id = f"{self._host}:{self._pid}"

    def say(self) -> None:
        """Alive now."""
        row = Worker(id=self._id, seen_at=utc_now(), can_train=self._can_train, pid=self._pid, host=self._host)
        with self._database.write() as session:
            session.merge(row)
            session.execute(delete(Worker).where(Worker.seen_at < utc_now() - FORGET_AFTER))

    def leave(self) -> None:
        """Gone in good order."""
        with self._database.write() as session:
            session.execute(delete(Worker).where(Worker.id == self._id))
