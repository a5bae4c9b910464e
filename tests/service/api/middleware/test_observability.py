"""Request ids in responses and log lines, and what is logged about a request."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from fastapi import FastAPI, Response
from fastapi.testclient import TestClient
from structlog.testing import capture_logs

from tests.service.conftest import encoded
from tests.service.otlp_receiver import receiving
from tests.service.tiny_bundle import picture, zipped

GENERATED = re.compile(r"[0-9a-f]{32}")


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    """Log entries, with the context of their request."""
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as entries:
        yield entries


def add_broken_route(client: TestClient) -> None:
    """Add the route /v1/broken, which raises an unexpected error."""
    app = client.app
    assert isinstance(app, FastAPI)

    @app.get("/v1/broken")
    def fails() -> None:
        raise RuntimeError


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("POST", "/v1/segment", encoded(picture()), 200),
        ("GET", "/livez", None, 200),
        ("POST", "/v1/segment", b"hello", 415),
        ("POST", "/v1/segment", bytes(21 * 2**20), 413),
        ("GET", "/nowhere", None, 404),
        ("GET", "/v1/segment", None, 405),
        ("GET", "/v1/images?limit=0", None, 422),
        ("GET", "/v1/broken", None, 500),
    ],
)
def test_every_response_has_the_request_id(
    client: TestClient, method: str, path: str, content: bytes | None, status: int
) -> None:
    add_broken_route(client)
    response = client.request(method, path, content=content, headers={"X-Request-Id": "req-1:a/b+c=@~._Z"})
    assert (response.status_code, response.headers["x-request-id"]) == (status, "req-1:a/b+c=@~._Z")
    assert response.headers.get_list("x-request-id") == ["req-1:a/b+c=@~._Z"]
    assert GENERATED.fullmatch(client.request(method, path, content=content).headers["x-request-id"])


@pytest.mark.parametrize("request_id", ["", "a b", "a\tb", "x" * 129, "<script>", "ü".encode(), b"a\x1b[31m"])
def test_unsafe_request_id_is_replaced(client: TestClient, request_id: str | bytes) -> None:
    raw = request_id if isinstance(request_id, bytes) else request_id.encode()
    ids = {client.get("/livez", headers={b"X-Request-Id": raw}).headers["x-request-id"] for _ in range(2)}
    assert len(ids) == 2
    assert all(GENERATED.fullmatch(each) for each in ids)


def test_every_log_line_of_a_request_has_its_id(client: TestClient, lines: list[Any], other_bundle: Any) -> None:
    """Lines from threads too; lines of the next request have another id."""
    client.post("/v1/models", content=zipped(other_bundle), headers={"X-Request-Id": "upload"})
    client.post("/v1/models/20260102T000000-bbbbbbbb/activate", headers={"X-Request-Id": "activate"})
    events = {(line["event"], line.get("request_id")) for line in lines}
    assert {("model imported", "upload"), ("model activated", "activate")} <= events
    assert {("request", "upload"), ("request", "activate")} <= events


def test_log_of_an_unexpected_error_has_the_request_id(client: TestClient, lines: list[Any]) -> None:
    add_broken_route(client)
    client.get("/v1/broken", headers={"X-Request-Id": "failing"})
    assert [(line["event"], line["request_id"]) for line in lines if line["event"] != "request"] == [
        ("unexpected error", "failing")
    ]
    (request,) = (line for line in lines if line["event"] == "request")
    assert (request["status"], request["request_id"]) == (500, "failing")


def test_log_lines_have_trace_and_span_ids(
    make_settings: Any, lines: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.service.conftest import serve

    with receiving() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        with serve(make_settings()) as client:
            client.get("/v1/images")
        (line,) = (line for line in lines if line["event"] == "request")
        span = receiver.one("GET /v1/images")
        assert (line["trace_id"], line["span_id"]) == (span.trace_id, span.span_id)


def test_probes_are_counted_but_not_logged(client: TestClient, lines: list[Any]) -> None:
    for path in ("/livez", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"):
        client.get(path)
    assert [line for line in lines if line["event"] == "request"] == []
    assert 'route="/livez",status="200"' in client.get("/metrics").text


def test_bodies_headers_and_queries_are_not_logged(client: TestClient, lines: list[Any]) -> None:
    headers = {"Authorization": "Bearer SECRET", "X-API-Key": "SECRET", "Cookie": "SECRET"}
    for content in (encoded(picture()), b"SECRET" * 100, b""):
        client.post("/v1/segment?key=SECRET", content=content, headers=headers)
    client.post("/v1/images?key=SECRET", files={"file": ("SECRET.png", b"SECRET")}, headers=headers)
    assert sum(line["event"] == "request" for line in lines) == 4
    assert "SECRET" not in str(lines)


def test_logged_path_is_escaped_and_truncated(client: TestClient, lines: list[Any]) -> None:
    client.get("/v1/x%0Aup%20%7C%20ready")
    client.get("/" + "y" * 5000)
    first, second = (line["path"] for line in lines if line["event"] == "request")
    assert first == "'/v1/x\\nup | ready'"
    assert len(second) == 200


def test_rate_limited_segmentation_counts_as_rejected(client: TestClient) -> None:
    app, value = client.app, client.app_state["maskloop"].metrics.registry.get_sample_value
    assert isinstance(app, FastAPI)
    app.add_api_route("/v9/segment", lambda: Response(status_code=429))
    app.add_api_route("/v9/other", lambda: Response(status_code=429))
    for path in ("/v9/segment", "/v9/other"):
        assert client.get(path).status_code == 429
    assert value("maskloop_segment_rejected_total", {"reason": "rate_limited"}) == 1
