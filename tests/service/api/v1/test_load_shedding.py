"""A full service rejects a segmentation before it checks the key and the query."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.settings import Settings
from service.state import State
from tests.service.conftest import MakeSettings, encoded, sample, serve
from tests.service.tiny_bundle import picture

URL = "/v1/segment"
PAGE = "https://page.example"
IMAGE = encoded(picture())
ROUTE = {"method": "POST", "route": URL, "status": "503"}


@contextmanager
def full(settings: Settings) -> Iterator[tuple[TestClient, State]]:
    """A service whose whole capacity is in use."""
    with serve(settings) as client:
        state: State = client.app_state["maskloop"]
        assert client.portal is not None
        with client.portal.wrap_async_context_manager(state.pipeline.admission()):
            yield client, state


def is_overloaded(answer: Any, setting: str) -> bool:
    """Whether a response is the problem `overloaded`, with the headers of every response."""
    assert answer.headers["x-request-id"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-type"] == "application/problem+json"
    assert setting in answer.json()["detail"]
    result = (answer.status_code, answer.headers["retry-after"], answer.json()["type"])
    return result == (503, "1", "urn:maskloop:problem:overloaded")


def test_full_service_gives_503_before_it_checks_key_and_query(make_settings: MakeSettings) -> None:
    unknown, wrong = {"X-API-Key": "unknown"}, f"{URL}?tolerance_px=-1"
    settings = make_settings(max_concurrent_requests=1)
    with full(settings) as (client, state):
        answers = [client.post(URL, headers=unknown), client.post(wrong), client.post(URL, content=IMAGE)]
        assert all(is_overloaded(answer, "MASKLOOP_MAX_CONCURRENT_REQUESTS") for answer in answers)
        # Each is counted once, by its route; the key was not checked.
        assert sample(state.metrics, "maskloop_segment_rejected_total", reason="overloaded") == 3
        assert sample(state.metrics, "maskloop_requests_total", **ROUTE) == 3
        assert not sample(state.metrics, "maskloop_callers_refused_total", reason="key-invalid")
        assert client.get("/livez").status_code == 200
    with serve(settings) as client:
        assert [client.post(URL, headers=unknown).status_code, client.post(wrong).status_code] == [401, 422]


def test_rejected_requests_count_against_no_rate_limit(make_settings: MakeSettings) -> None:
    settings = make_settings(
        api_key="",
        max_concurrent_requests=1,
        anonymous_rate_limit_per_minute=1,
        failed_keys_per_minute=1,
        cors_origins=[PAGE],
    )
    with serve(settings) as client:
        state: State = client.app_state["maskloop"]
        assert client.portal is not None
        with client.portal.wrap_async_context_manager(state.pipeline.admission()):
            for headers in ({}, {"X-API-Key": "unknown"}) * 3:
                answer = client.post(URL, content=IMAGE, headers={"Origin": PAGE, **headers})
                assert is_overloaded(answer, "MASKLOOP_MAX_CONCURRENT_REQUESTS")
                # Pages of allowed origins can read the error.
                assert answer.headers["access-control-allow-origin"] == PAGE
        anonymous = [client.post(URL, content=IMAGE).status_code for _ in range(2)]
        invalid_keys = [client.post(URL, headers={"X-API-Key": "unknown"}).status_code for _ in range(2)]
        assert (anonymous, invalid_keys) == ([200, 429], [401, 429])


@pytest.mark.parametrize("path", ["/v1/segment/batch", "/v2/models/segment/infer"])
def test_other_requests_still_get_401_from_a_full_service(make_settings: MakeSettings, path: str) -> None:
    with full(make_settings(max_concurrent_requests=1)) as (client, _):
        assert client.post(path, headers={"X-API-Key": "unknown"}).status_code == 401
