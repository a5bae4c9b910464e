"""Retention by age and by bytes: what goes, what stays, and that an interrupted sweep is continued."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from service.retention.expiry import limits_of
from service.retention.retention_sweep import Retention
from service.runs.worker.deletion_sweep import sweep_deletions
from service.settings import Settings
from service.state import State, open_state
from service.storage.tables import DeletedImage, Image, Model, Pool, Run, utc_now
from service.worker.sweeper import sweep
from tests.service.conftest import encoded
from tests.service.retention.conftest import DAY_S, MakeRetention
from tests.service.runs.conftest import BAD, GOOD, SteppedClock, fill, finished_run, write_version
from tests.service.tiny_bundle import picture

PassDays = Callable[[Retention, float], None]


def ids(state: State) -> set[str]:
    with state.database.read() as session:
        return set(session.scalars(select(Image.id)))


def kept_models(state: State) -> set[str]:
    return {model.version for model in state.models.list() if model.state != "deleted"}


def test_nothing_is_deleted_by_default(loop: State, make_retention: MakeRetention, clock: SteppedClock) -> None:
    added, retention = fill(loop), make_retention()
    run_id = finished_run(loop)
    loop.models.import_folder(write_version(loop.settings.data_dir / "more", "other"))
    for _ in range(3):
        clock.step(1000 * DAY_S)
        retention.sweep()
    assert ids(loop) == set(added)
    assert loop.runs.get(run_id).deleted_at is None
    assert kept_models(loop) == {BAD, GOOD, "other"}


def test_old_unlabelled_images_are_deleted(loop: State, make_retention: MakeRetention, pass_days: PassDays) -> None:
    added = fill(loop, labelled=1, val=1, unlabelled=2)
    retention = make_retention(images_days=3)
    pass_days(retention, 2)
    later = fill(loop, labelled=0, val=0, unlabelled=1, seed=1)
    pass_days(retention, 2)
    assert ids(loop) == {*added[:2], *later}
    with pytest.raises(FileNotFoundError):
        loop.images._blobs.read("images", added[2])
    with loop.database.read() as session:
        rows = session.scalars(select(DeletedImage)).all()
        assert session.get_one(Pool, 1).deleted_by_age == 2
    assert {(row.image_id, row.reason) for row in rows} == {(added[2], "age"), (added[3], "age")}
    assert all(row.completed_at for row in rows)


def test_clock_that_jumps_ahead_makes_nothing_old(
    loop: State, make_retention: MakeRetention, pass_days: PassDays, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = fill(loop)
    retention = make_retention(images_days=30, runs_days=30, models_days=30)
    pass_days(retention, 1)
    monkeypatch.setattr("service.retention.operating_clock.utc_now", lambda: utc_now() + timedelta(days=3650))
    pass_days(retention, 1)
    # Also in a worker that starts with the wrong clock.
    pass_days(make_retention(images_days=30), 1)
    assert ids(loop) == set(added)


def test_oldest_images_are_deleted_above_the_limit_of_bytes(loop: State, make_retention: MakeRetention) -> None:
    added = fill(loop, labelled=2, val=1, unlabelled=5)
    sizes = [loop.images.get(each).bytes for each in added]
    make_retention(images_bytes=sum(sizes[-2:])).sweep()
    assert ids(loop) == {*added[:3], *added[-2:]}
    with loop.database.read() as session:
        pool = session.get_one(Pool, 1)
        assert (pool.unlabelled_bytes, pool.deleted_by_bytes) == (sum(sizes[-2:]), 3)


def test_sweep_of_a_worker_deletes(loop_settings: Callable[..., Settings]) -> None:
    state = open_state(loop_settings(keep_images_bytes=1))
    state.models.ensure_start_model()
    added = fill(state, labelled=1, val=1, unlabelled=2)
    sweep(state)
    assert ids(state) == set(added[:2])
    state.close()


def test_interrupted_deletion_of_images_is_completed(
    loop: State, make_retention: MakeRetention, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = fill(loop, labelled=0, val=0, unlabelled=3)
    with monkeypatch.context() as patched:
        patched.setattr("service.retention.retention_sweep.complete_deletions", _killed)
        with pytest.raises(KeyboardInterrupt):
            make_retention(images_bytes=1).sweep()
    assert ids(loop) == set()
    assert sweep_deletions(loop.database, loop.images, loop.settings.data_dir / "runs") == 3
    for image_id in added:
        with pytest.raises(FileNotFoundError):
            loop.images._blobs.read("images", image_id)


def test_image_that_a_run_uses_is_complete_after_the_run(
    loop: State, make_retention: MakeRetention, pass_days: PassDays
) -> None:
    fill(loop, labelled=0, val=0, unlabelled=2)
    with loop.database.write() as session:
        session.add(Run(id="r", number=1, status="running", reason="manual", image_sequence=2))
    retention = make_retention(images_days=1)
    pass_days(retention, 2)
    assert ids(loop) == set()
    runs = loop.settings.data_dir / "runs"
    assert sweep_deletions(loop.database, loop.images, runs) == 0
    with loop.database.write() as session:
        session.get_one(Run, "r").status = "judged"
    assert sweep_deletions(loop.database, loop.images, runs) == 2


def test_files_of_an_old_run_are_deleted_unless_its_model_is_in_use(
    loop: State, make_retention: MakeRetention, pass_days: PassDays
) -> None:
    fill(loop)
    run_id = finished_run(loop)
    retention = make_retention(runs_days=2)
    pass_days(retention, 4)
    assert loop.runs.get(run_id).deleted_at is None, "it has trained the active model"
    loop.models.import_folder(write_version(loop.settings.data_dir / "more", "other"))
    for version in (BAD, "other"):
        loop.releases.activate(version, "test", None)
    with loop.database.write() as session:
        # Otherwise it is the best so far.
        session.execute(update(Model).where(Model.version == GOOD).values(miou=0.0))
    pass_days(retention, 1)
    assert loop.runs.get(run_id).deleted_at is None, "its age counts from the last use"
    pass_days(retention, 2)
    run = loop.runs.get(run_id)
    assert (run.deletion_reason, run.deleted_by) == ("age", None)
    assert run.bytes
    folder = loop.settings.data_dir / "runs" / run_id
    assert [path.name for path in folder.iterdir()] == ["recipe.toml"]
    assert loop.runs.events(run_id)[-1].event == {"event": "deleted", "reason": "age"}
    assert not [each for each in loop.runs.events(run_id) if each.event["event"] == "progress"]


def test_largest_total_of_runs_is_kept_after_a_day(
    loop: State, make_retention: MakeRetention, pass_days: PassDays
) -> None:
    runs = loop.settings.data_dir / "runs"
    for number in range(1, 4):
        (runs / f"r{number}").mkdir(parents=True)
        (runs / f"r{number}" / "log.txt").write_bytes(bytes(100))
        with loop.database.write() as session:
            session.add(Run(id=f"r{number}", number=number, status="failed", reason="manual"))
    retention = make_retention(runs_bytes=250)
    pass_days(retention, 1)
    assert all(loop.runs.get(f"r{number}").deleted_at is None for number in (1, 2, 3))
    pass_days(retention, 0.1)
    assert [loop.runs.get(f"r{number}").deletion_reason for number in (1, 2, 3)] == ["bytes", None, None]


@pytest.mark.parametrize("limit", [{"models_days": 2}, {"models_bytes": 1}])
def test_models_that_are_not_in_use_are_deleted(
    loop: State, make_retention: MakeRetention, pass_days: PassDays, tmp_path: Path, limit: dict[str, Any]
) -> None:
    for version in ("first", "best", "earlier", "never", "active"):
        loop.models.import_folder(write_version(tmp_path, version))
        if version != "never":
            loop.models.activate(version, "test")
        with loop.database.write() as session:
            loop.models.record_miou(session, {version: 0.9 if version == "best" else 0.5})
    retention = make_retention(**limit)
    pass_days(retention, 1)
    assert kept_models(loop) == {BAD, "first", "best", "earlier", "never", "active"}
    pass_days(retention, 2)
    assert kept_models(loop) == {"best", "earlier", "active"}
    assert {loop.models.get(version).deletion_reason for version in (BAD, "first", "never")} == {
        next(iter(limit)).removeprefix("models_").replace("days", "age")
    }


def test_preview_tells_what_the_sweep_deletes(
    loop: State, make_retention: MakeRetention, pass_days: PassDays, tmp_path: Path
) -> None:
    added = fill(loop, labelled=1, val=1, unlabelled=2)
    loop.models.import_folder(write_version(tmp_path, "other"))
    pass_days(make_retention(), 3)
    more = [loop.images.add(encoded(picture(seed=seed)))[0] for seed in (50, 51, 52)]
    limits = {"images_days": 1, "images_bytes": more[2].bytes, "models_days": 1}
    retention = make_retention(**limits)
    found = retention.preview(limits_of(retention._settings))
    assert (found.images.by_age, found.images.by_bytes) == (2, 2)
    assert [(each.name, each.reason) for each in found.models] == [("other", "age")]
    assert {each.name: each.in_use for each in found.stored_models if each.in_use} == {BAD: "it is the active model"}
    before = loop.images.counts().bytes
    pass_days(retention, 0)
    assert ids(loop) == {*added[:2], more[2].id}
    assert before - loop.images.counts().bytes == found.images.bytes
    assert kept_models(loop) == {BAD}


def test_pool_may_exceed_the_limit_by_more_than_two_gigabytes(loop: State, make_retention: MakeRetention) -> None:
    fill(loop, labelled=0, val=0, unlabelled=2)
    with loop.database.write() as session:
        session.get_one(Pool, 1).unlabelled_bytes = 2**40
    retention = make_retention(images_bytes=2**33, images_days=10_000)
    assert retention.preview(limits_of(retention._settings)).images.by_bytes == 2


def _killed(*_: object) -> None:
    raise KeyboardInterrupt
