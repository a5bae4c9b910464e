"""The heartbeat of a worker: a row whose counter grows while the process lives."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress

from sqlalchemy import delete
from sqlalchemy.exc import DBAPIError

from service.process_identity import process_identity
from service.settings import Settings
from service.storage.database import Database
from service.storage.tables import Worker, utc_now
from service.worker.fault_log import FaultLog


class WorkerHeartbeat:
    """The worker row of this process."""

    def __init__(self, database: Database, *, can_train: bool) -> None:
        self._database = database
        self._can_train = can_train
        self._host, self._pid = socket.gethostname(), os.getpid()
        self._id = f"{self._host}:{self._pid}"
        self._process = process_identity(self._pid)
        self._beats = 0
        self.sent = threading.Event()
        """Set after the first heartbeat."""

    def send(self, settings: Settings, ending: threading.Event) -> None:
        """Send heartbeats until `ending` is set, then delete the row."""
        faults = FaultLog("heartbeat", settings.data_dir)
        while not ending.is_set():
            try:
                self.beat()
                self.sent.set()
                faults.report()
            except Exception as error:
                faults.report(error)
            ending.wait(settings.heartbeat_s)
        with suppress(DBAPIError):
            self.remove()

    def beat(self) -> None:
        """Record that this worker is alive."""
        self._beats += 1
        row = Worker(
            id=self._id,
            seen_at=utc_now(),
            can_train=self._can_train,
            pid=self._pid,
            host=self._host,
            beats=self._beats,
            process=self._process,
        )
        with self._database.write() as session:
            session.merge(row)

    def remove(self) -> None:
        """Delete the row, on a clean shutdown."""
        with self._database.write() as session:
            session.execute(delete(Worker).where(Worker.id == self._id))
