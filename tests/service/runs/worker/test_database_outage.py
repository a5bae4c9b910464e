"""The database does not answer for a moment while a run is performed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from service.state import State
from tests.service.runs.actor import Actor
from tests.service.runs.conftest import SteppedClock, fill, perform_run, reap_silent, register_worker

SAVED = '"saved", "step": 3'


def shown(parameters: Any) -> str:
    """The parameters of a statement; psycopg wraps the values that it stores as JSON."""
    values = parameters.values() if isinstance(parameters, dict) else parameters
    return " ".join(str(getattr(value, "obj", value)) for value in values).replace("'", '"')


@contextmanager
def failing_from_saved_state(state: State, failures: int) -> Iterator[None]:
    """Let the statement that records the third saved state fail, and further ones up to a number of failures."""
    left = [failures]

    def fail(_connection: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
        begun = left[0] < failures or ("INSERT INTO run_events" in statement and SAVED in shown(parameters))
        if begun and left[0] > 0:
            left[0] -= 1
            raise OperationalError(statement, {}, sqlite3.OperationalError("database is locked"))

    event.listen(state.database.engine, "before_cursor_execute", fail)
    yield
    event.remove(state.database.engine, "before_cursor_execute", fail)


@pytest.mark.parametrize("failures", [1, 50])
def test_run_is_resumed_after_a_database_outage(loop: State, actor: Actor, clock: SteppedClock, failures: int) -> None:
    fill(loop)
    register_worker(loop)
    run_id = loop.retrain_policy.start("manual").id
    actor.behave(steps=5)
    with failing_from_saved_state(loop, failures), capture_logs() as lines, suppress(OperationalError):
        perform_run(loop, run_id)
    assert not [line for line in lines if line["log_level"] in ("error", "critical")]
    if failures == 1:
        assert "The database cannot be reached" in loop.runs.events(run_id)[-1].event["reason"]
    else:
        # The end of the attempt could not be recorded either.
        assert loop.runs.get(run_id).status == "running"
        assert reap_silent(loop, clock) == [run_id]
    assert loop.runs.get(run_id).status == "queued"
    assert perform_run(loop, run_id).status == "judged"
