"""Perform a run in the process of the test."""

from __future__ import annotations

import threading

from sqlalchemy import select

from service.state import State
from service.storage.tables import Activation
from tests.service.runs.conftest import perform_run


class Background:
    """A run that is performed in a thread, so that the test can act meanwhile."""

    def __init__(self, loop: State, run_id: str) -> None:
        self.stopping = threading.Event()
        self._thread = threading.Thread(target=perform_run, args=(loop, run_id), kwargs={"stopping": self.stopping})
        self._thread.start()

    def join(self) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive()


def activations(loop: State) -> list[str]:
    with loop.database.read() as session:
        return list(session.scalars(select(Activation.version).order_by(Activation.id)))
