"""The operating time: neither clock steps nor several workers make anything older than it is."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from service.retention.operating_clock import OperatingClock, hour_before, newest_image_before, present_hour
from service.state import State
from service.storage.retention_tables import OperatingTime
from service.storage.tables import utc_now
from tests.service.conftest import encoded
from tests.service.retention.conftest import DAY_S
from tests.service.runs.conftest import SteppedClock
from tests.service.tiny_bundle import picture


class WallClock:
    def __init__(self) -> None:
        self.now = utc_now()

    def __call__(self) -> datetime:
        return self.now


def seconds(state: State) -> float:
    with state.database.read() as session:
        return session.get_one(OperatingTime, 1).seconds


def test_steps_of_the_wall_clock_do_not_count_while_a_worker_runs(state: State) -> None:
    monotonic, wall = SteppedClock(), WallClock()
    worker = OperatingClock(state.database, monotonic, wall)
    worker.advance()
    before = seconds(state)
    for years in (20, -30, 10):
        monotonic.step(60)
        wall.now += timedelta(days=365 * years)
        worker.advance()
    assert seconds(state) - before == pytest.approx(180)


@pytest.mark.parametrize(
    ("pause", "counted_s"),
    [(timedelta(hours=5), 5 * 3600), (timedelta(days=9000), DAY_S), (timedelta(days=-9000), 0)],
)
def test_pause_without_a_worker_counts_as_a_day_at_most(state: State, pause: timedelta, counted_s: float) -> None:
    wall = WallClock()
    OperatingClock(state.database, SteppedClock(), wall).advance()
    before = seconds(state)
    wall.now += pause
    OperatingClock(state.database, SteppedClock(), wall).advance()
    assert seconds(state) - before == pytest.approx(counted_s)


def test_time_of_two_workers_is_not_added_up(state: State) -> None:
    monotonic, wall = SteppedClock(), WallClock()
    workers = [OperatingClock(state.database, monotonic, wall) for _ in range(2)]
    for worker in workers:
        worker.advance()
    before = seconds(state)
    for _ in range(10):
        monotonic.step(5)
        workers[0].advance()
        monotonic.step(5)
        workers[1].advance()
    assert 90 <= seconds(state) - before <= 100


def test_images_are_found_by_their_age(state: State) -> None:
    monotonic = SteppedClock()
    worker = OperatingClock(state.database, monotonic)
    for seed in range(3):
        state.images.add(encoded(picture(seed=seed)))
        hour = worker.advance()
        monotonic.step(DAY_S)
    with state.database.read() as session:
        assert present_hour(session) == hour
        found = [newest_image_before(session, hour_before(hour, days)) for days in (3, 1.5, 0.5)]
    # Of the first hour nothing is known before.
    assert found == [0, 1, 2]
