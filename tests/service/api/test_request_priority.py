"""Deadlines and priorities in request headers."""

from __future__ import annotations

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
async def test_urgency_by_rfc_9218(priority: str | None, urgency: int) -> None:
    assert (await read_priority(None, priority)).urgency == urgency


def test_passed_deadline_gets_504(client: TestClient) -> None:
    sent = {"X-Request-Timeout-Ms": "1"}
    # At least one of five takes longer than a millisecond on any machine.
    image = encoded(picture(900, 900))
    responses = [client.post("/v1/segment", content=image, headers=sent) for _ in range(5)]
    late = [response for response in responses if response.status_code != 200]
    assert late
    assert {response.status_code for response in late} == {504}
    assert late[0].json()["type"] == "urn:maskloop:problem:deadline-passed"


@pytest.mark.parametrize("value", ["0", "-5", "soon", "99999999999"])
def test_invalid_timeout_gets_422(client: TestClient, value: str) -> None:
    sent = {"X-Request-Timeout-Ms": value}
    assert client.post("/v1/segment", content=encoded(picture()), headers=sent).status_code == 422


def test_response_names_the_precision_of_the_model(client: TestClient) -> None:
    assert client.post("/v1/segment", content=encoded(picture())).headers["X-Model-Precision"] == "fp32"


@pytest.mark.parametrize("router", [segment.router, segment_batch.router, infer.router, health.router])
def test_dependencies_of_segmentation_and_probes_run_on_the_event_loop(router: APIRouter) -> None:
    """In the thread pool they would wait while it is busy."""
    routes = [route for route in router.routes if isinstance(route, APIRoute)]
    assert routes
    dependants = [dependant for route in routes for dependant in flatten(route.dependant)]
    calls = [dependant.call for dependant in dependants if inspect.isroutine(dependant.call)]
    assert [call for call in calls if not (inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call))] == []


def flatten(dependant: Dependant) -> list[Dependant]:
    return [dependant, *(deeper for each in dependant.dependencies for deeper in flatten(each))]
