"""Watch whether the data folder can be written: disks fill up while the service runs."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

import structlog
from prometheus_client import Gauge

from service.errors import MaskloopError
from service.storage.storage_faults import storage_fault

log = structlog.stdlib.get_logger(__name__)

CHECK_EVERY_S = 5.0
STOP_TIMEOUT_S = 5.0
# About one image, and one page.
PROBE_BYTES, SMALL_PROBE_BYTES = 2**20, 4096
# Checks from one large probe to the next: an hour. Flash memory wears out.
CHECKS_PER_LARGE_PROBE = 720


def write_probe(folder: Path, size_bytes: int = PROBE_BYTES) -> None:
    """Write a temporary file to a folder, which is created if needed. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder, buffering=0) as probe:
        probe.write(bytes(size_bytes))


class DataFolder:
    """Whether the data folder can be written; a thread writes a temporary file every few seconds."""

    def __init__(self, folder: Path, writable: Gauge) -> None:
        self._folder = folder
        self._writable = writable
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._checks = 0
        self.problem: str | None = None
        """Why the folder cannot be written, and the remedy."""

    def start(self) -> None:
        """Check now, and start the thread."""
        self.check()
        self._thread = threading.Thread(target=self._watch, name="data-folder", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(STOP_TIMEOUT_S)

    def check(self) -> None:
        """Try to write: one page, but now and then, and until a problem is solved, as much as an image."""
        large = self.problem is not None or self._checks % CHECKS_PER_LARGE_PROBE == 0
        self._checks += 1
        try:
            write_probe(self._folder, PROBE_BYTES if large else SMALL_PROBE_BYTES)
        except OSError as error:
            fault = storage_fault(error, self._folder)
            self._set(str(fault or error))
        else:
            self._set(None)

    def report(self, fault: MaskloopError) -> None:
        """Record that a write failed."""
        self._set(str(fault))

    def _watch(self) -> None:
        while not self._stopping.wait(CHECK_EVERY_S):
            self.check()

    def _set(self, problem: str | None) -> None:
        before, self.problem = self.problem, problem
        self._writable.set(problem is None)
        if problem is not None and before is None:
            log.error("the data folder cannot be written; images are segmented, but nothing is kept", reason=problem)
        elif problem is None and before is not None:
            log.info("the data folder can be written again")
