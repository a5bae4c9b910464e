"""Counting inferences, and what shows that a model is worse."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.errors import ImageTooLarge, OutOfMemory
from service.models.bundle import read_bundle
from service.models.loading import load_model
from service.releases.watch.latency_histogram import (
    cell_of,
    count_above,
    quantile_bucket,
    quantile_s,
    upper_bound_s,
)
from service.releases.watch.regression import find_regression
from service.releases.watch.traffic_counters import Counts, TrafficCounters, read_counts, write_counts
from service.releases.watch.watched_predictor import WatchedPredictor, watched
from service.segmentation.inference.cancellation import InferenceCancelled
from service.segmentation.inference.predictor import Predictor
from service.segmentation.inference.providers import CPU
from service.settings import Settings
from service.state import State
from tests.service.conftest import MakeSettings
from tests.service.runs.conftest import BAD
from tests.service.tiny_bundle import picture

LEVEL, RUNS = 0.01, 200
CELL = cell_of(0.01, pixels=1200, is_first=False)


def durations(rng: np.random.Generator, count: int, median_s: float, *, pixels: int = 300_000, **kind: Any) -> Counts:
    """Counts of successful inferences with log-normal durations."""
    seconds = median_s * np.exp(rng.normal(0, 0.5, count))
    return Counts(count, 0, Counter(cell_of(float(each), pixels=pixels, **kind) for each in seconds))


def together(*counts: Counts) -> Counts:
    total = Counts()
    for each in counts:
        total.add(each)
    return total


def test_buckets_hold_their_durations() -> None:
    for seconds in (1e-4, 0.0123, 1.0, 77.0):
        *kind, bucket = cell_of(seconds, pixels=640 * 480, is_first=True)
        assert kind == [36, 1, 1]
        assert upper_bound_s(bucket - 1) <= seconds * (1 + 1e-9)
        assert seconds < upper_bound_s(bucket)
        found = quantile_s(Counter({(36, 1, 1, bucket): 1}), 0.95)
        assert found == upper_bound_s(bucket)
    assert cell_of(0.0, pixels=1, is_first=False) == (0, 1, 0, 0)
    assert quantile_s(Counter(), 0.95) is None


def test_quantile_is_the_bucket_below_which_the_share_lies() -> None:
    histogram = {3: 90, 5: 5, 9: 5}
    assert (quantile_bucket(histogram, 0.9), quantile_bucket(histogram, 0.95), quantile_bucket(histogram, 1)) == (
        3,
        5,
        9,
    )
    assert (count_above(histogram, 3), count_above(histogram, 9)) == (10, 0)


def test_model_that_fails_is_worse() -> None:
    old = Counts(100, 0, Counter({(36, 1, 0, 40): 100}))
    why = find_regression(Counts(20, 10, Counter({(36, 1, 0, 40): 10})), old, LEVEL)
    assert why == "10 of 20 inferences failed, and 0 of 100 of the model before"
    assert find_regression(Counts(20, 1, Counter({(36, 1, 0, 40): 19})), old, LEVEL) is None


def test_error_rate_that_hardly_grows_does_not_matter() -> None:
    old, new = Counts(10**6, 0), Counts(10**6, 5000)
    assert find_regression(new, old, LEVEL) is None


def test_model_that_is_three_times_slower_is_worse_and_an_equal_one_is_not() -> None:
    rng = np.random.default_rng(0)
    old = durations(rng, 200, 0.01)
    why = find_regression(durations(rng, 100, 0.03), old, LEVEL)
    assert why is not None
    assert "inferences of one size and number of threads took longer than 0.0" in why
    for _ in range(200):
        assert find_regression(durations(rng, 500, 0.01), durations(rng, 50, 0.01), 0.05) is None


def test_larger_images_and_first_inferences_do_not_make_a_model_slower() -> None:
    """After the swap, clients send larger images, and the first inference of each size allocates memory."""
    rng = np.random.default_rng(0)
    old = together(durations(rng, 1000, 0.01), durations(rng, 100, 0.1, pixels=3_000_000))
    new = together(durations(rng, 300, 0.1, pixels=3_000_000), durations(rng, 30, 0.05, is_first=True))
    assert find_regression(new, old, LEVEL) is None
    slower = together(new, durations(rng, 300, 0.3, pixels=3_000_000))
    assert find_regression(slower, old, LEVEL) is not None


@pytest.mark.parametrize(("threads", "factor", "is_slower"), [(1, 3, True), (4, 3, False), (4, 12, True)])
def test_one_of_several_threads_may_do_the_work_of_all(threads: int, factor: float, is_slower: bool) -> None:
    """Under load, its CPU time grows by as much as there are threads."""
    rng = np.random.default_rng(0)
    old, new = (durations(rng, 300, median_s, threads=threads) for median_s in (0.01, 0.01 * factor))
    assert (find_regression(new, old, LEVEL) is not None) == is_slower
    # Another number of threads is another kind.
    assert find_regression(durations(rng, 300, 1.0, threads=threads + 1), old, LEVEL) is None


def test_size_with_few_earlier_inferences_is_not_compared() -> None:
    rng = np.random.default_rng(0)
    assert find_regression(durations(rng, 500, 1.0), durations(rng, 19, 0.01), LEVEL) is None


@pytest.mark.parametrize("before", [20, 100, 1000])
def test_equal_models_are_not_told_apart_by_a_look_after_each_hundred_inferences(before: int) -> None:
    rng, wrong = np.random.default_rng(before), 0
    for _ in range(RUNS):
        # A serving model, whose opponent has ended, and a canary, whose opponent goes on.
        old, new, goes_on = durations(rng, before, 0.01), Counts(), rng.random() < 0.5
        for _ in range(10):
            new.add(durations(rng, 100, 0.01))
            if goes_on:
                old.add(durations(rng, 400, 0.01))
            if find_regression(new, old, 0.05):
                wrong += 1
                break
    assert wrong <= RUNS * 0.05 + 2 * math.sqrt(RUNS * 0.05 * 0.95)


def test_first_model_is_compared_with_nothing() -> None:
    assert find_regression(Counts(10, 10), Counts(), LEVEL) is None


class Fails:
    """A predictor whose every inference raises."""

    provider = CPU

    def __init__(self, error: Exception) -> None:
        self._error = error

    def run(self, *_: Any) -> Any:
        raise self._error


@pytest.mark.parametrize(
    ("error", "counted"),
    [(RuntimeError("onnxruntime"), 1), (OutOfMemory("full"), 1), (ImageTooLarge("x"), 0), (InferenceCancelled(), 0)],
)
def test_only_failures_of_the_model_are_counted(error: Exception, counted: int) -> None:
    counters = TrafficCounters()
    predictor = WatchedPredictor(Fails(error), "v", counters)  # type: ignore[arg-type]  # only `run` is called
    with pytest.raises(type(error)):
        predictor.run(picture())
    assert {version: counts.errors for version, counts in counters.take().items()} == ({"v": 1} if counted else {})


def test_load_of_the_machine_does_not_make_a_model_slower(bundle: Path, make_settings: MakeSettings) -> None:
    """The threads of other programs stretch the duration, but not the CPU time."""
    model, counters = load_model(read_bundle(bundle), make_settings()), TrafficCounters()
    predictor, image = WatchedPredictor(Sleeps(model.engine), "v", counters), picture()  # type: ignore[arg-type]  # only `run` is called
    for _ in range(3):
        predictor.run(image)
    (counts,) = counters.take().values()
    assert sorted(is_first for _, _, is_first, _ in counts.latency.elements()) == [0, 0, 1]
    slowest = quantile_s(counts.latency, 1.0)
    assert slowest is not None
    assert slowest < Sleeps.SECONDS


class Sleeps:
    """A predictor that is kept from the CPU before each inference."""

    SECONDS = 0.2
    provider = CPU

    def __init__(self, engine: Predictor) -> None:
        self._engine = engine

    def run(self, *arguments: Any) -> Any:
        time.sleep(self.SECONDS)
        return self._engine.run(*arguments)


def test_watched_model_gives_the_same_mask_and_counts_it(bundle: Path, make_settings: MakeSettings) -> None:
    model, counters = load_model(read_bundle(bundle), make_settings()), TrafficCounters()
    image = picture()
    found = watched(model, counters).engine
    np.testing.assert_array_equal(found.run(image).mask_HW, model.engine.run(image).mask_HW)
    assert len(found.run_batch([image, image])) == 2
    (counts,) = counters.take().values()
    assert (counts.requests, counts.errors, counts.latency.total()) == (3, 0, 3)


def test_counters_of_many_threads_and_processes_are_summed(loop: State) -> None:
    activation = loop.models.activation()
    assert activation is not None

    def count() -> None:
        counters = TrafficCounters()
        for _ in range(10):
            counters.record(BAD, Counts(1, 0, Counter({CELL: 1})))
            counters.record(BAD, Counts(1, 1))
            with loop.database.write() as session:
                write_counts(session, counters.take())

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with loop.database.read() as session:
        total = read_counts(session, BAD, [activation.id])
    assert (total.requests, total.errors, total.latency) == (80, 40, Counter({CELL: 40}))


def test_settings_of_the_watch_have_defaults() -> None:
    assert (Settings().watch_requests, Settings().watch_level) == (10_000, 0.01)
