"""Models and a pool, as for runs, and retention whose operating time a test moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from service.retention.operating_clock import OperatingClock
from service.retention.retention_sweep import Retention
from service.state import State
from tests.service.runs.conftest import SteppedClock, actor, bad, clock, good, loop, loop_settings

__all__ = ["actor", "bad", "clock", "good", "loop", "loop_settings"]

DAY_S = 24 * 3600.0

MakeRetention = Callable[..., Retention]


@pytest.fixture
def make_retention(loop: State, clock: SteppedClock) -> MakeRetention:
    """Return a function that makes the retention of a worker, with limits without `keep_`."""

    def make(**limits: Any) -> Retention:
        settings = loop.settings.model_copy(update={f"keep_{name}": value for name, value in limits.items()})
        deletion = replace(loop.deletion, settings=settings)
        return Retention(deletion, loop.images, OperatingClock(loop.database, clock), files_every_s=0)

    return make


@pytest.fixture
def pass_days(clock: SteppedClock) -> Callable[[Retention, float], None]:
    """Return a function that lets a worker run for some days, and sweep once a day and at the end."""

    def run(retention: Retention, days: float) -> None:
        retention.sweep()
        while days > 0:
            clock.step(min(days, 1.0) * DAY_S)
            days -= 1
            retention.sweep()

    return run
