"""The shadow runs only while nothing else does, and keeps nobody waiting."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.models.bundle import read_bundle
from service.models.loading import LoadedModel, load_model
from service.releases.rollout.candidate_model import CandidateModel
from service.releases.rollout.shadow_runner import ShadowRunner
from service.releases.watch.traffic_counters import TrafficCounters
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


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a priority is that of the process")
def test_shadow_has_the_lowest_priority_and_others_keep_theirs(shadow: Shadow) -> None:
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    shadow.busy.set()
    shadow.offer()
    eventually(lambda: bool(shadow.threads))
    assert os.getpriority(os.PRIO_PROCESS, shadow.threads[0]) == 19
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == own
    shadow.busy.clear()
    eventually(lambda: shadow.counted()["images"] == 1)


def test_answers_of_another_model_are_not_compared(shadow: Shadow, other_bundle: Path, state: State) -> None:
    mask = shadow.active.engine.run(IMAGE).mask_HW
    shadow.runner.offer(load_model(read_bundle(other_bundle), state.settings), IMAGE, mask)
    shadow.offer()
    eventually(lambda: shadow.counted() == {"images": 1, "dropped": 0})
