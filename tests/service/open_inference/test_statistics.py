"""Counts and times of requests, images and runs."""

from __future__ import annotations

from typing import Any

import pytest

from service.errors import BadInput
from service.metrics import Metrics
from service.open_inference.statistics import RequestTimings, Statistics
from service.segmentation.admission.request_context import RequestContext


def context(batch: int, **seconds: float) -> RequestContext:
    made = RequestContext(Metrics())
    made.batch = batch
    made.seconds |= seconds
    return made


def serve(statistics: Statistics, *contexts: RequestContext) -> RequestTimings:
    with statistics.request("seg", 1) as timings:
        timings.add_images(contexts)
    return timings


def stats_of(statistics: Statistics) -> Any:
    (stats,) = statistics.to_json([("seg", 1)], "seg", 1)["model_stats"]
    return stats


def test_statistics_are_zero_before_the_first_request() -> None:
    empty = stats_of(Statistics())
    assert empty["inference_count"] == empty["execution_count"] == empty["last_inference"] == 0
    assert empty["inference_stats"]["success"] == {"count": 0, "ns": 0}
    assert empty["batch_stats"] == []


def test_times_of_single_images_are_summed() -> None:
    statistics = Statistics()
    serve(
        statistics,
        context(1, queue=0.5, decode=0.1, infer=1.0),
        context(1, queue=1.5, decode=0.1, infer=2.0, encode=0.25),
    )
    stats = stats_of(statistics)
    assert (stats["inference_count"], stats["execution_count"]) == (2, 2)
    assert stats["inference_stats"]["queue"] == {"count": 1, "ns": 500_000_000}
    assert stats["inference_stats"]["compute_infer"] == {"count": 1, "ns": 3_000_000_000}
    assert stats["batch_stats"] == [
        {
            "batch_size": 1,
            "compute_input": {"count": 2, "ns": 200_000_000},
            "compute_infer": {"count": 2, "ns": 3_000_000_000},
            "compute_output": {"count": 2, "ns": 250_000_000},
        }
    ]


def test_time_of_a_shared_run_is_counted_once() -> None:
    statistics = Statistics()
    # A run of four images of one request, and a run of two images of separate requests.
    serve(statistics, *(context(4, queue=0.0, infer=1.0) for _ in range(4)))
    for _ in range(2):
        assert serve(statistics, context(2, queue=0.0, infer=3.0)).stages["compute_infer"] == 3.0
    stats = stats_of(statistics)
    assert (stats["inference_count"], stats["execution_count"]) == (6, 2)
    assert stats["inference_stats"]["success"]["count"] == 3
    assert stats["inference_stats"]["compute_infer"]["ns"] == 7_000_000_000
    assert [(batch["batch_size"], batch["compute_infer"]) for batch in stats["batch_stats"]] == [
        (2, {"count": 1, "ns": 3_000_000_000}),
        (4, {"count": 1, "ns": 1_000_000_000}),
    ]


def test_failures_are_counted_and_reraised() -> None:
    statistics = Statistics()
    for error in (BadInput("no"), RuntimeError("broken")):
        with pytest.raises(type(error)), statistics.request("seg", 1):
            raise error
    stats = stats_of(statistics)
    assert stats["inference_stats"]["fail"]["count"] == 2
    assert stats["inference_stats"]["success"]["count"] == stats["inference_count"] == 0


def test_statistics_are_filtered_by_model_and_version() -> None:
    statistics = Statistics()
    serve(statistics, context(1, queue=0.0))
    versions = [("seg", 2), ("other", 1)]

    def listed(model: str | None, version: int | None) -> list[tuple[str, str]]:
        return [(one["name"], one["version"]) for one in statistics.to_json(versions, model, version)["model_stats"]]

    assert listed(None, None) == [("other", "1"), ("seg", "1"), ("seg", "2")]
    assert listed("seg", None) == [("seg", "1"), ("seg", "2")]
    assert listed("seg", 2) == [("seg", "2")]
