"""What is counted: requests, images and runs are three things."""

from __future__ import annotations

from typing import Any

import pytest

from service.errors import BadInput
from service.metrics import Metrics
from service.open_inference.statistics import Spent, Statistics
from service.segmentation.admission.request_context import RequestContext


def visit(batch: int, **seconds: float) -> RequestContext:
    found = RequestContext(Metrics())
    found.batch = batch
    found.seconds |= seconds
    return found


def serve(statistics: Statistics, *visits: RequestContext) -> Spent:
    with statistics.request("seg", 1) as spent:
        spent.on(visits)
    return spent


def out(statistics: Statistics) -> Any:
    (found,) = statistics.out([("seg", 1)], "seg", 1)["model_stats"]
    return found


def test_before_any_request_there_are_noughts() -> None:
    empty = out(Statistics())
    assert empty["inference_count"] == empty["execution_count"] == empty["last_inference"] == 0
    assert empty["inference_stats"]["success"] == {"count": 0, "ns": 0}
    assert empty["batch_stats"] == []


def test_images_one_by_one_add_up() -> None:
    statistics = Statistics()
    serve(
        statistics, visit(1, queue=0.5, decode=0.1, infer=1.0), visit(1, queue=1.5, decode=0.1, infer=2.0, encode=0.25)
    )
    found = out(statistics)
    assert (found["inference_count"], found["execution_count"]) == (2, 2)
    assert found["inference_stats"]["queue"] == {"count": 1, "ns": 500_000_000}
    assert found["inference_stats"]["compute_infer"] == {"count": 1, "ns": 3_000_000_000}
    assert found["batch_stats"] == [
        {
            "batch_size": 1,
            "compute_input": {"count": 2, "ns": 200_000_000},
            "compute_infer": {"count": 2, "ns": 3_000_000_000},
            "compute_output": {"count": 2, "ns": 250_000_000},
        }
    ]


def test_images_that_went_together_took_their_time_once() -> None:
    statistics = Statistics()
    # A run of four images, all of one request; and one of two, each of a request of its own.
    serve(statistics, *(visit(4, queue=0.0, infer=1.0) for _ in range(4)))
    for _ in range(2):
        assert serve(statistics, visit(2, queue=0.0, infer=3.0)).stages["compute_infer"] == 3.0
    found = out(statistics)
    assert (found["inference_count"], found["execution_count"]) == (6, 2)
    assert found["inference_stats"]["success"]["count"] == 3
    assert found["inference_stats"]["compute_infer"]["ns"] == 7_000_000_000
    assert [(one["batch_size"], one["compute_infer"]) for one in found["batch_stats"]] == [
        (2, {"count": 1, "ns": 3_000_000_000}),
        (4, {"count": 1, "ns": 1_000_000_000}),
    ]


def test_failures_are_counted_and_raised() -> None:
    statistics = Statistics()
    for error in (BadInput("no"), RuntimeError("broken")):
        with pytest.raises(type(error)), statistics.request("seg", 1):
            raise error
    found = out(statistics)
    assert found["inference_stats"]["fail"]["count"] == 2
    assert found["inference_stats"]["success"]["count"] == found["inference_count"] == 0


def test_what_is_asked_for_is_what_is_listed() -> None:
    statistics = Statistics()
    serve(statistics, visit(1, queue=0.0))
    versions = [("seg", 2), ("other", 1)]

    def listed(model: str | None, version: int | None) -> list[tuple[str, str]]:
        return [(one["name"], one["version"]) for one in statistics.out(versions, model, version)["model_stats"]]

    assert listed(None, None) == [("other", "1"), ("seg", "1"), ("seg", "2")]
    assert listed("seg", None) == [("seg", "1"), ("seg", "2")]
    assert listed("seg", 2) == [("seg", "2")]
