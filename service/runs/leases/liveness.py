"""Whether runs and workers are alive: each increments a counter, and others observe it by their own clock.

No time that another process wrote is compared with a clock: clocks differ, are set, and jump after a suspend.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.process_identity import has_ended
from service.storage.tables import Worker

MISSED_HEARTBEATS = 6


@dataclass(frozen=True, slots=True)
class Sighting:
    """What is known about a counter."""

    silent_s: float
    """Seconds since it was first seen with its present value."""
    observations: int
    """How often it has been seen with this value."""


class Liveness:
    """What this process has observed; thread-safe. `clock` returns seconds and never goes back."""

    def __init__(self, heartbeat_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit_s = MISSED_HEARTBEATS * heartbeat_s
        """Silence after which a process counts as dead."""
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[object, float, int]] = {}

    def observe(self, name: str, beat: object) -> Sighting:
        """Record the present value of a counter."""
        with self._lock:
            now = self._clock()
            known, since, observations = self._seen.get(name, (None, now, 0))
            if known != beat:
                since, observations = now, 0
            self._seen[name] = (beat, since, observations + 1)
            return Sighting(now - since, observations + 1)

    def silence_s(self, worker: Worker) -> float:
        """Seconds for which a worker has been silent; infinite if its process on this machine has ended."""
        silent_s = self.observe(f"worker {worker.id}", (worker.process, worker.beats)).silent_s
        return float("inf") if has_ended(worker.process) else silent_s

    def living(self, session: Session) -> list[Worker]:
        """Read the workers that are alive. One that is seen for the first time counts as alive."""
        return [worker for worker in session.scalars(select(Worker)) if self.silence_s(worker) < self.limit_s]
