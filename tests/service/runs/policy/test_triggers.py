"""Triggers: images, labels, the schedule; pauses; and what is missing until the next run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event, text, update

from service.runs.leases.lease import claim
from service.runs.policy.triggers import new_images, new_labels
from service.runs.worker.snapshot import take_snapshot
from service.settings import Settings
from service.state import State, open_state
from service.storage.tables import Run, RunStatus, utc_now
from tests.service.class_lists import TINY
from tests.service.conftest import encoded
from tests.service.runs.conftest import fill, register_worker
from tests.service.tiny_bundle import COLORS, nearest, picture

OpenLoop = Callable[..., State]
NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


@pytest.fixture
def open_loop(loop_settings: Callable[..., Settings]) -> Iterator[OpenLoop]:
    """Open stores with changed settings, the bad model active and a worker."""
    opened: list[State] = []

    def make(**changes: object) -> State:
        state = open_state(loop_settings(**changes))
        opened.append(state)
        state.models.ensure_start_model()
        register_worker(state)
        return state

    yield make
    for state in opened:
        state.close()


def label(state: State, image_id: str, seed: int) -> None:
    mask = encoded(nearest(picture(seed=seed), COLORS))
    state.images.put_mask(image_id, mask, classes=TINY)


def end(state: State, run: Run, status: RunStatus) -> None:
    """Take the snapshot of a queued run, and end it."""
    lease = claim(state.database, run.id)
    assert lease is not None
    take_snapshot(lease)
    lease.finish(status)


def ended_ago(state: State, **ago: float) -> None:
    with state.database.write() as session:
        session.execute(update(Run).values(finished_at=utc_now() - timedelta(**ago)))


def test_labels_alone_start_a_run(open_loop: OpenLoop) -> None:
    loop = open_loop(retrain_after_images=0, retrain_after_labels=6)
    ids = fill(loop)
    assert loop.retrain_policy.consider() is None
    label(loop, ids[-1], seed=7)
    run = loop.retrain_policy.consider()
    assert run is not None
    assert run.reason == "labels"


def test_labels_that_the_last_run_learned_do_not_count_and_replaced_ones_do(open_loop: OpenLoop) -> None:
    loop = open_loop(retrain_after_images=0, retrain_after_labels=5)
    ids = fill(loop, unlabelled=0)
    first = loop.retrain_policy.consider()
    assert first is not None
    end(loop, first, "judged")
    assert loop.retrain_policy.next_run().new_labels == 0
    for number, image_id in enumerate(ids):
        assert loop.retrain_policy.consider() is None
        label(loop, image_id, seed=number)
    # The second label of an image does not count twice.
    label(loop, ids[0], seed=0)
    assert loop.retrain_policy.next_run().new_labels == 5
    assert loop.retrain_policy.consider() is not None


def test_labels_of_a_failed_run_count_again(open_loop: OpenLoop) -> None:
    loop = open_loop(retrain_after_images=0, retrain_after_labels=5)
    fill(loop, unlabelled=0)
    first = loop.retrain_policy.consider()
    assert first is not None
    end(loop, first, "failed")
    ended_ago(loop, hours=1)
    assert loop.retrain_policy.consider() is not None


def test_labels_of_a_run_cancelled_before_its_snapshot_do_not_start_the_next(open_loop: OpenLoop) -> None:
    loop = open_loop(retrain_after_images=0, retrain_after_labels=5)
    fill(loop, unlabelled=0)
    first = loop.retrain_policy.consider()
    assert first is not None
    loop.runs.request_cancel(first.id)
    assert loop.retrain_policy.consider() is None


def test_triggers_that_are_off_start_nothing(open_loop: OpenLoop) -> None:
    loop = open_loop(retrain_after_images=0, retrain_after_labels=0)
    ids = fill(loop)
    assert loop.retrain_policy.consider() is None
    assert loop.retrain_policy.consider_image(loop.images.get(ids[-1]).sequence) is None
    assert loop.retrain_policy.consider_schedule() is None
    assert "on request only" in loop.retrain_policy.next_run().message


@pytest.mark.parametrize("status", ["judged", "cancelled"])
def test_cooldown_delays_the_next_automatic_run(open_loop: OpenLoop, status: RunStatus) -> None:
    loop = open_loop(retrain_cooldown_s=600)
    fill(loop)
    first = loop.retrain_policy.consider()
    assert first is not None
    end(loop, first, status)
    fill(loop, labelled=0, val=0, seed=1)
    assert loop.retrain_policy.consider() is None
    told = loop.retrain_policy.next_run()
    assert told.due == "images"
    assert told.paused_until is not None
    assert timedelta(minutes=9) < told.paused_until - utc_now() <= timedelta(minutes=10)
    assert "MASKLOOP_RETRAIN_COOLDOWN_S" in told.message
    # A person does not have to wait.
    loop.runs.request_cancel(loop.retrain_policy.start("manual").id)
    ended_ago(loop, seconds=601)
    fill(loop, labelled=0, val=0, seed=2)
    assert loop.retrain_policy.consider() is not None


def test_clock_that_was_set_back_does_not_extend_the_cooldown(open_loop: OpenLoop) -> None:
    loop = open_loop(retrain_cooldown_s=600)
    fill(loop)
    first = loop.retrain_policy.consider()
    assert first is not None
    end(loop, first, "failed")
    ended_ago(loop, days=-1)
    assert loop.retrain_policy.consider() is not None


def at(day: int, hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 5, day, hour, minute, tzinfo=UTC)


def test_schedule_starts_a_run_once_a_time_has_passed(open_loop: OpenLoop) -> None:
    loop = open_loop(retrain_after_images=0, retrain_cron="0 3 * * *", time_zone="Europe/Berlin")
    fill(loop)
    consider = loop.retrain_policy.consider_schedule
    assert consider(at(4, 0)) is None
    assert consider(at(4, 0, 59)) is None
    # 3:00 in Berlin.
    run = consider(at(4, 1))
    assert run is not None
    assert (run.status, run.reason) == ("queued", "schedule")
    end(loop, run, "judged")
    fill(loop, labelled=0, val=0, unlabelled=1, seed=1)
    assert consider(at(4, 1, 1)) is None
    assert consider(at(4, 23)) is None
    assert consider(at(5, 1)) is not None


def test_times_missed_while_no_worker_ran_start_one_run(open_loop: OpenLoop) -> None:
    loop = open_loop(retrain_after_images=0, retrain_cron="0 3 * * *")
    fill(loop)
    assert loop.retrain_policy.consider_schedule(at(4, 0)) is None
    later = open_state(loop.settings)
    run = later.retrain_policy.consider_schedule(at(20, 12))
    assert run is not None
    end(later, run, "judged")
    fill(later, labelled=0, val=0, unlabelled=1, seed=1)
    assert later.retrain_policy.consider_schedule(at(20, 13)) is None
    later.close()


def test_schedule_starts_no_run_without_new_images_or_labels(open_loop: OpenLoop) -> None:
    loop = open_loop(retrain_after_images=0, retrain_cron="0 * * * *")
    ids = fill(loop)
    consider = loop.retrain_policy.consider_schedule
    assert consider(at(4, 0, 1)) is None
    run = consider(at(4, 1, 1))
    assert run is not None
    end(loop, run, "judged")
    assert consider(at(4, 2, 1)) is None
    label(loop, ids[0], seed=0)
    # At the next time, not at once.
    assert consider(at(4, 2, 2)) is None
    assert consider(at(4, 3, 1)) is not None


def test_time_at_which_no_run_can_start_is_skipped(open_loop: OpenLoop) -> None:
    loop = open_loop(retrain_after_images=0, retrain_cron="0 * * * *")
    fill(loop, val=0)
    consider = loop.retrain_policy.consider_schedule
    assert consider(at(4, 0, 1)) is None
    assert consider(at(4, 1, 1)) is None
    fill(loop, labelled=0, val=1, unlabelled=0, seed=1)
    assert consider(at(4, 1, 2)) is None
    assert consider(at(4, 2, 1)) is not None


def test_changed_schedule_and_a_clock_that_was_ahead_start_anew(open_loop: OpenLoop) -> None:
    loop = open_loop(retrain_after_images=0, retrain_cron="0 3 * * *")
    fill(loop)
    assert loop.retrain_policy.consider_schedule(at(4, 12)) is None
    hourly = open_loop(retrain_after_images=0, retrain_cron="0 * * * *")
    assert hourly.retrain_policy.consider_schedule(at(5, 12, 1)) is None
    # Then the clock is set back by a month.
    assert hourly.retrain_policy.consider_schedule(at(5, 12, 2) - timedelta(days=30)) is None
    assert hourly.retrain_policy.consider_schedule(at(5, 13, 1) - timedelta(days=30)) is not None


def test_small_step_of_the_clock_does_not_repeat_a_time(open_loop: OpenLoop) -> None:
    loop = open_loop(retrain_after_images=0, retrain_cron="0 3 * * *")
    fill(loop)
    consider = loop.retrain_policy.consider_schedule
    assert consider(at(4, 0)) is None
    run = consider(at(4, 3))
    assert run is not None
    end(loop, run, "failed")
    ended_ago(loop, days=1)
    assert consider(at(4, 3) - timedelta(seconds=30)) is None
    assert consider(at(4, 3) + timedelta(seconds=30)) is None


def test_two_workers_start_one_scheduled_run(open_loop: OpenLoop) -> None:
    loop = open_loop(retrain_after_images=0, retrain_cron="0 3 * * *")
    fill(loop)
    other = open_state(loop.settings)
    assert loop.retrain_policy.consider_schedule(at(4, 0)) is None
    run = loop.retrain_policy.consider_schedule(at(4, 3))
    assert run is not None
    end(loop, run, "failed")
    ended_ago(loop, days=1)
    assert other.retrain_policy.consider_schedule(at(4, 3, 1)) is None
    other.close()


def test_next_run_is_told_in_numbers_and_words(open_loop: OpenLoop) -> None:
    loop = open_loop(retrain_after_images=4, retrain_after_labels=7, retrain_cron="0 3 * * *")
    fill(loop, val=0)
    told = loop.retrain_policy.next_run()
    assert (told.due, told.new_images, told.images_needed) == (None, 3, 4)
    assert (told.new_labels, told.labels_needed, told.paused_until) == (2, 7, None)
    assert told.message.startswith(
        "The next run starts after 1 more unlabelled image, or after 5 more labels, or at 20"
    )
    assert "None can start now: No image is labelled for validation" in told.message
    fill(loop, labelled=0, val=1, unlabelled=1, seed=1)
    due = loop.retrain_policy.next_run()
    assert (due.due, due.obstacle) == ("images", None)
    assert due.message == "A run is due, because there are enough new images. It starts within seconds."
    run = loop.retrain_policy.consider()
    assert run is not None
    assert f"Run {run.id} is active" in loop.retrain_policy.next_run().message
    end(loop, run, "failed")
    assert "because the last run failed" in loop.retrain_policy.next_run().message


def test_next_run_tells_that_drift_starts_runs(open_loop: OpenLoop) -> None:
    told = open_loop(retrain_after_images=0, retrain_after_labels=0, retrain_on_drift=True).retrain_policy.next_run()
    assert told.on_drift
    assert told.message.startswith("The next run starts on a drift alarm.")


def test_counts_read_an_index_and_stop_at_the_limit(loop: State) -> None:
    """Otherwise they would take longer in a larger pool."""
    if loop.database.engine.dialect.name != "sqlite":
        pytest.skip("the plan is SQLite's")
    with recorded(loop) as statements, loop.database.read() as session:
        new_images(session, 3)
        new_labels(session, 3)
    counts = [statement for statement in statements if "FROM images" in statement[0]]
    assert len(counts) == 2
    with loop.database.read() as session:
        for sql, parameters in counts:
            assert "LIMIT" in sql
            named = sql
            for value in parameters:
                named = named.replace("?", str(value), 1)
            plan = " ".join(row.detail for row in session.execute(text(f"EXPLAIN QUERY PLAN {named}")))
            assert "SEARCH images USING INDEX ix_images_" in plan.replace("COVERING ", "")
            assert "sequence>?" in plan


@contextmanager
def recorded(state: State) -> Iterator[list[tuple[str, tuple[object, ...]]]]:
    """Record statements and their parameters."""
    statements: list[tuple[str, tuple[object, ...]]] = []

    def record(_connection: object, _cursor: object, sql: str, parameters: tuple[object, ...], *_: object) -> None:
        statements.append((sql, parameters))

    event.listen(state.database.engine, "before_cursor_execute", record)
    yield statements
    event.remove(state.database.engine, "before_cursor_execute", record)
