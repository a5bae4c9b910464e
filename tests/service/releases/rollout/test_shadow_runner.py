"""The shadow runs only while nothing else does, and keeps nobody waiting."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.models.bundle import read_bundle
from service.models.loading import LoadedModel, load_model
from service.releases.rollout.candidate_model import CandidateModel
from service.releases.rollout.shadow_runner import ShadowRunner
from service.releases.watch.traffic_counters import TrafficCounters
from service.segmentation.inference.cancellation import CancelCheck
from service.segmentation.inference.predictor import Pixels, Prediction
from service.state import State
from service.storage.tables import Release
from tests.service.conftest import MakeSettings, eventually
from tests.service.tiny_bundle import picture

FIRST, SECOND = "20260101T000000-aaaaaaaa", "20260102T000000-bbbbbbbb"
IMAGE = picture()


class Shadow:
    """A running shadow with the active model, and whether the service is busy."""

    def __init__(self, state: State, candidate: Path, active: Path) -> None:
        self.active: LoadedModel = load_model(read_bundle(active), state.settings)
        self.busy = threading.Event()
        self.threads: list[int] = []
        state.models.import_folder(candidate, state="candidate")
        candidates = CandidateModel(state.settings, state.models, TrafficCounters())
        candidates.follow(Release(id=7, state="shadow", version=SECOND, base_version=FIRST))
        loaded = candidates.shadow(self.active)
        assert loaded is not None
        self.candidate = loaded.loaded
        self.runner = ShadowRunner(state.settings, candidates, self._is_busy)
        self.runner.start()
        self.total = {"images": 0, "dropped": 0}

    def _is_busy(self) -> bool:
        self.threads.append(threading.get_native_id())
        return self.busy.is_set()

    def offer(self, times: int = 1) -> None:
        mask = self.active.engine.run(IMAGE).mask_HW
        for _ in range(times):
            self.runner.offer(self.active, IMAGE, mask)

    def counted(self) -> dict[str, int]:
        for found in self.runner.take().values():
            self.total["images"] += found.images
            self.total["dropped"] += found.dropped
        return self.total


@pytest.fixture
def shadow(make_settings: MakeSettings, state: State, bundle: Path, other_bundle: Path) -> Iterator[Shadow]:
    opened = Shadow(state, other_bundle, bundle)
    yield opened
    opened.runner.stop()


@pytest.fixture
def make_settings(make_settings: MakeSettings) -> MakeSettings:
    return lambda **changes: make_settings(shadow_share=1.0, **changes)


def test_images_that_come_while_the_service_is_busy_are_dropped(shadow: Shadow) -> None:
    shadow.busy.set()
    shadow.offer()
    # The thread holds the first, and the queue the second.
    eventually(lambda: bool(shadow.threads))
    shadow.offer(4)
    assert shadow.counted() == {"images": 0, "dropped": 3}
    shadow.busy.clear()
    eventually(lambda: shadow.counted() == {"images": 2, "dropped": 3})


def test_image_is_dropped_if_the_service_stays_busy(shadow: Shadow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.releases.rollout.shadow_runner.PATIENCE_S", 0.05)
    shadow.busy.set()
    shadow.offer()
    eventually(lambda: shadow.counted() == {"images": 0, "dropped": 1})


def test_request_stops_the_inference_of_the_shadow_and_the_image_is_tried_again(
    shadow: Shadow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The inference ends only because it is stopped; afterwards the service is idle, and the image is compared."""
    engine, runs = shadow.candidate.engine, 0
    run = engine.run

    def until_stopped(image: Pixels, threads: int, is_cancelled: CancelCheck) -> Prediction:
        nonlocal runs
        runs += 1
        eventually(is_cancelled if runs == 1 else lambda: True)
        return run(image, threads, is_cancelled)

    monkeypatch.setattr(engine, "run", until_stopped)
    shadow.offer()
    eventually(lambda: runs == 1)
    shadow.runner.interrupt()
    eventually(lambda: shadow.counted() == {"images": 1, "dropped": 0})
    assert runs == 2


def test_shadow_waits_until_no_request_came_for_a_moment(shadow: Shadow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.releases.rollout.shadow_runner.QUIET_S", 0.2)
    shadow.busy.set()
    shadow.offer()
    eventually(lambda: bool(shadow.threads))
    shadow.busy.clear()
    begin = time.monotonic()
    eventually(lambda: shadow.counted() == {"images": 1, "dropped": 0})
    assert time.monotonic() - begin >= 0.2


def test_image_that_needs_much_memory_is_dropped_at_once(shadow: Shadow) -> None:
    shadow.runner._max_bytes = 1
    shadow.offer()
    assert shadow.counted() == {"images": 0, "dropped": 1}


def test_answers_of_another_model_are_not_compared(shadow: Shadow, other_bundle: Path, state: State) -> None:
    mask = shadow.active.engine.run(IMAGE).mask_HW
    shadow.runner.offer(load_model(read_bundle(other_bundle), state.settings), IMAGE, mask)
    shadow.offer()
    eventually(lambda: shadow.counted() == {"images": 1, "dropped": 0})
