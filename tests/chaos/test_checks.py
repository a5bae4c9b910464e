"""The checks find each kind of loss in a pool that was damaged on purpose, and nothing in a sound one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import update

from service.state import State, open_state
from service.storage.blob_store import relative_path
from service.storage.tables import Activation, Pool, Release, Run
from tests.chaos.calls import API_DOWN, Calls, Failure
from tests.chaos.checks import check_all
from tests.chaos.ledger import Ledger, Operation, digest
from tests.chaos.pictures import random_image, random_mask
from tests.chaos.process_list import Process
from tests.chaos.program_watch import ProgramWatch
from tests.service.class_lists import list_of
from tests.service.conftest import settings_maker
from tests.service.tiny_bundle import write_bundle


class Pooled:
    """A pool with one labelled image, and the ledger of its client."""

    def __init__(self, state: State) -> None:
        self.state, self.ledger = state, Ledger()
        self.seen: dict[str, dict[object, object]] = {}
        rng = np.random.default_rng(0)
        self.image_id, data = random_image(rng)
        mask, png = random_mask(rng)
        for operation in (Operation("upload"), Operation("label", digest(mask.tobytes()))):
            self.ledger.begin(self.image_id, operation)
            self.ledger.end(self.image_id, operation, "done")
        state.images.add(data)
        self.mask = str(state.images.put_mask(self.image_id, png, classes=list_of("abcdefgh")).mask_sha256)

    @property
    def data_dir(self) -> Path:
        return self.state.settings.data_dir

    def violations(self) -> list[str]:
        found = check_all(self.state.database, self.data_dir, self.ledger, self.seen)
        return [*found, *self.ledger.violations]


@pytest.fixture
def pooled(tmp_path: Path) -> Iterator[Pooled]:
    state = open_state(settings_maker(tmp_path, write_bundle(tmp_path / "bundle"))())
    state.models.ensure_start_model()
    yield Pooled(state)
    state.close()


def test_sound_pool_has_no_violations(pooled: Pooled) -> None:
    assert pooled.violations() == []
    assert pooled.violations() == []


def test_each_damage_is_found(pooled: Pooled) -> None:
    """One pool for all of them: opening a database takes longer than the checks."""
    assert pooled.violations() == []
    blobs, database = pooled.data_dir / "blobs", pooled.state.database
    (blobs / relative_path("masks", pooled.mask)).write_bytes(random_mask(np.random.default_rng(9))[1])
    (blobs / relative_path("images", pooled.image_id)).write_bytes(b"other")
    (blobs / "images" / "stray").touch()
    (blobs / "unconfirmed" / "images" / "stray").touch()
    (pooled.data_dir / "models" / ".import-1").mkdir()
    (pooled.data_dir / "runs" / "r" / "attempt-1").mkdir(parents=True)
    with database.write() as session:
        session.execute(update(Pool).values(labelled=7))
        session.execute(update(Activation).values(reason="other"))
        session.add(Run(id="r", status="running", reason="manual", number=1))
        session.flush()
        session.add(
            Release(run_id="r", version=session.query(Activation).one().version, verdict={}, state="serving", reason="")
        )
    text = "\n".join(pooled.violations())
    for expected in (
        f"image {pooled.image_id}: its file is damaged",
        f"image {pooled.image_id}: its state is ",
        "the pool's counters are {'unlabelled': 0, 'labelled': 7",
        "blobs/images/stray belongs to no image",
        "blobs/unconfirmed/images/stray is left",
        "models/.import-1 is left",
        "runs/r/attempt-1 is left",
        "run r is running (None, attempt 0)",
        "run r is running and has 1 releases",
        "release 1 is serving, but activation 1 is in effect",
        "activation 1 was (",
    ):
        assert expected in text, expected


def test_two_programs_in_one_folder_are_found(tmp_path: Path) -> None:
    watch = ProgramWatch(tmp_path)
    trainers = [
        Process(pid, "trainer", f"python -m trainer train r.toml --out /runs/1/attempt-{n}/train", 1)
        for pid, n in ((7, 1), (8, 2), (9, 2))
    ]
    watch.look(trainers[:2])
    assert watch.violations == []
    watch.look(trainers)
    assert watch.violations == ["[8, 9] write to /runs/1/attempt-2/train at the same time"]


def test_fault_excuses_only_its_own_failures_in_its_own_time() -> None:
    calls, now = Calls(), time.monotonic()
    fault = calls.disturb("disk full", frozenset({"507"}))
    fault.end = now + 10
    for kind, outcome, begin in (
        ("upload", "507", now + 5),
        ("upload", "507", now + 11),
        ("upload", "500", now + 5),
        ("segment", "507", now + 5),
        ("list", "no answer", now + 5),
    ):
        calls.failures.append(Failure(kind, outcome, f"{outcome} at {begin - now:.0f}", begin, begin + 1))
    judged = [text.split(" (")[0] for text in calls.judge()]
    assert judged == ["upload: 507 at 11", "upload: 500 at 5", "segment: 507 at 5", "list: no answer at 5"]
    calls.disturb("API killed", API_DOWN)
    calls.failures.append(Failure("segment", "503", "", now + 100, now + 101))
    assert calls.judge() == []
