"""Deadlines and priorities in headers."""

from __future__ import annotations

import asyncio
import inspect

import pytest
from fastapi import APIRouter
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from service.api import health
from service.api.request_priority import read_priority
from service.api.v1 import segment, segment_batch
from service.api.v2 import infer
from tests.service.conftest import encoded
from tests.service.tiny_bundle import picture


@pytest.mark.parametrize(
    ("priority", "urgency"),
    [(None, 3), ("u=0", 0), ("u=6", 6), ("i, u=5", 5), ("u=2;x, i", 2), ("u=9", 3), ("u=55", 3), ("i", 3), ("", 3)],
)
def test_urgency_by_rfc_9218(priority: str | None, urgency: int) -> None:
    assert asyncio.run(read_priority(None, priority)).urgency == urgency


def test_a_time_that_is_over_is_said_so(client: TestClient) -> None:
    sent = {"X-Request-Timeout-Ms": "1"}
    # One of five takes longer than a millisecond on any machine.
    image = encoded(picture(900, 900))
    answers = [client.post("/v1/segment", content=image, headers=sent) for _ in range(5)]
    late = [answer for answer in answers if answer.status_code != 200]
    assert late
    assert {answer.status_code for answer in late} == {504}
    assert late[0].json()["type"] == "urn:maskloop:problem:deadline-passed"


@pytest.mark.parametrize("value", ["0", "-5", "soon", "99999999999"])
def test_a_time_that_is_none_is_refused(client: TestClient, value: str) -> None:
    sent = {"X-Request-Timeout-Ms": value}
    assert client.post("/v1/segment", content=encoded(picture()), headers=sent).status_code == 422


def test_the_answer_says_which_graph_gave_it(client: TestClient) -> None:
    assert client.post("/v1/segment", content=encoded(picture())).headers["X-Model-Precision"] == "fp32"


@pytest.mark.parametrize("router", [segment.router, segment_batch.router, infer.router, health.router])
def test_nothing_that_an_image_or_a_probe_asks_for_goes_to_a_thread(router: APIRouter) -> None:
    """There they would wait for a busy pool."""
    routes = [route for route in router.routes if isinstance(route, APIRoute)]
    assert routes
    waiting = [dependant for route in routes for dependant in all_of(route.dependant)]
    calls = [dependant.call for dependant in waiting if inspect.isroutine(dependant.call)]
    assert [call for call in calls if not (inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call))] == []


def all_of(dependant: Dependant) -> list[Dependant]:
    return [dependant, *(deeper for each in dependant.dependencies for deeper in all_of(each))]
