"""Log the faults of periodic work: each when it begins, not each time that the work is tried again."""

from __future__ import annotations

from pathlib import Path

import structlog

from service.errors import MaskloopError
from service.storage.storage_faults import reason_of, storage_fault

log = structlog.stdlib.get_logger(__name__)


class FaultLog:
    """The faults of some work, such as "sweep", that are logged and not over."""

    def __init__(self, work: str, data_dir: Path) -> None:
        self._work = work
        self._data_dir = data_dir
        self._known: set[str] = set()

    def report(self, *errors: Exception) -> None:
        """Log those errors of one try that were not in the try before; without errors, all faults are over."""
        found = {}
        for error in errors:
            fault = storage_fault(error, self._data_dir)
            found[str(fault or error)] = error, fault is not None or isinstance(error, MaskloopError)
        for text, (error, expected) in found.items():
            if text in self._known:
                continue
            if expected:
                log.warning("work failed; it is tried again", work=self._work, reason=text, cause=reason_of(error))
            else:
                log.error("work failed; it is tried again", work=self._work, exc_info=error)
        self._known = set(found)
