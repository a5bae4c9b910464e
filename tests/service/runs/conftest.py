"""A pool with labels, an inaccurate active model, and a trainer whose candidate is better."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.runs.leases.lease import claim
from service.runs.leases.reaper import MIN_OBSERVATIONS, reap
from service.runs.worker.perform import perform
from service.runs.worker.snapshot import DatasetWriter, Sizes, take_snapshot
from service.settings import Settings
from service.state import State, open_state
from service.storage.tables import Run, Split, Worker, utc_now
from tests.service.class_lists import TINY
from tests.service.conftest import TEST_KEY, encoded, server_settings
from tests.service.runs.actor import Actor
from tests.service.tiny_bundle import COLORS, NAMES, nearest, picture, write_bundle

BAD, GOOD = "20260101T000000-bad00000", "20260102T000000-good0000"
CLASSES = [{"id": i, "name": n, "color": list(c)} for i, (n, c) in enumerate(zip(NAMES, COLORS, strict=True))]
# The part of the recipe in a bundle that a run needs.
RECIPE = {
    "method": "supervised",
    "model": {"encoder": "tiny", "weights": "none", "features": 8},
    "inference": {"long_side": 0},
    "data": {"root": "elsewhere", "crop": [32, 32], "scale": [0.5, 2.0]},
    "train": {"steps": 7, "lr_encoder": 0.001},
}


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    """A bundle with the right classes that predicts a wrong one for nearly every pixel."""
    provenance = {"parent": None, "recipe": RECIPE, "data_fingerprint": "none", "code_version": "test"}
    return write_bundle(
        tmp_path / "bad", version=BAD, colors=(*COLORS[1:], COLORS[0]), classes=CLASSES, provenance=provenance
    )


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "good", version=GOOD)


@pytest.fixture
def actor(tmp_path: Path, good: Path) -> Actor:
    return Actor(tmp_path / "actor", good)


@pytest.fixture
def loop_settings(tmp_path: Path, bad: Path, actor: Actor) -> Callable[..., Settings]:
    def make(**changes: Any) -> Settings:
        defaults: dict[str, Any] = {
            "data_dir": tmp_path / "data",
            "model": str(bad),
            "api_key": TEST_KEY,
            "model_poll_s": 0.05,
            "inference_threads": 1,
            "heartbeat_s": 0.25,
            "stop_grace_s": 5.0,
            "retrain_after_images": 3,
            "retrain_after_labels": 0,
            "min_labelled_images": 2,
            "trainer_python": str(actor.python),
        }
        return Settings(**(defaults | server_settings(changes.get("data_dir", defaults["data_dir"])) | changes))

    return make


class SteppedClock:
    """A clock for `Liveness` that only a test moves."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def step(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def loop(loop_settings: Callable[..., Settings], clock: SteppedClock) -> Iterator[State]:
    """The stores, with the bad model active and an empty pool. Workers and runs fall silent when `clock` is stepped."""
    opened = open_state(loop_settings(), clock=clock)
    opened.models.ensure_start_model()
    yield opened
    opened.close()


def fill(state: State, *, labelled: int = 2, val: int = 3, unlabelled: int = 3, seed: int = 0) -> list[str]:
    """Add images to the pool, with correct masks. Returns the ids: labelled, val, unlabelled."""
    splits: list[tuple[Split | None, int]] = [("labelled", labelled), ("val", val), (None, unlabelled)]
    ids = []
    for number, split in enumerate(split for split, count in splits for _ in range(count)):
        pixels = picture(seed=100 * seed + number)
        ids.append(state.images.add(encoded(pixels))[0].id)
        if split is not None:
            mask = encoded(nearest(pixels, COLORS))
            state.images.put_mask(ids[-1], mask, classes=TINY, split=split)
    return ids


def register_worker(state: State, *, can_train: bool = True) -> None:
    """Register a worker, or send its next heartbeat."""
    with state.database.write() as session:
        known = session.get(Worker, "test:1")
        beats = known.beats + 1 if known else 1
        session.merge(Worker(id="test:1", seen_at=utc_now(), can_train=can_train, pid=1, host="test", beats=beats))


def reap_silent(state: State, clock: SteppedClock) -> list[str]:
    """Sweep until what does not send heartbeats counts as dead; return the runs that were queued again."""
    queued = []
    for _ in range(MIN_OBSERVATIONS):
        queued += reap(state.database, state.liveness)
        clock.step(state.liveness.limit_s)
    return queued


def write_dataset(state: State, run_id: str, folder: Path) -> Sizes:
    """Write the data set of a queued run, as its worker does; the run is queued again."""
    lease = claim(state.database, run_id)
    assert lease is not None
    take_snapshot(lease)
    lease.release()
    base = state.runs.get(run_id).base_version
    history = state.models.classes.history()
    writer = DatasetWriter(
        run_id=run_id,
        runs=state.runs,
        images=state.images,
        history=history,
        classes=history.version(state.runs.get(run_id).classes_version or 0),
        limits=state.limits,
        check=lambda: None,
    )
    return writer.write(folder, str(base))


def finished_run(loop: State) -> str:
    """Start and perform a run."""
    register_worker(loop)
    return perform_run(loop, loop.retrain_policy.start("manual").id).id


def perform_run(
    loop: State, run_id: str, *, stopping: threading.Event | None = None, settings: Settings | None = None
) -> Run:
    """Perform a queued run with the substitute of the trainer."""
    perform(
        run_id,
        stopping or threading.Event(),
        settings=settings or loop.settings,
        database=loop.database,
        images=loop.images,
        models=loop.models,
    )
    return loop.runs.get(run_id)


def write_version(folder: Path, version: str, *, checkpoint: bool = True, **changes: Any) -> Path:
    """Write a bundle with a recipe, and by default a checkpoint."""
    provenance = {"parent": None, "recipe": RECIPE, "data_fingerprint": "none", "code_version": "test"}
    bundle = write_bundle(
        folder / version, version=version, **({"classes": CLASSES, "provenance": provenance} | changes)
    )
    if checkpoint:
        (bundle / "model.safetensors").write_bytes(b"weights")
        manifest = json.loads((bundle / "manifest.json").read_text())
        manifest["checkpoint"] = {
            "file": "model.safetensors",
            "sha256": hashlib.sha256(b"weights").hexdigest(),
            "bytes": 7,
        }
        (bundle / "manifest.json").write_text(json.dumps(manifest))
    return bundle
