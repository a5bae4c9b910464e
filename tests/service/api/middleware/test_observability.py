"""Every request has a name, which its answer and all of its log lines bear."""

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

MADE = re.compile(r"[0-9a-f]{32}")


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    """What is logged, with what belongs to the request."""
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as found:
        yield found


def broken(client: TestClient) -> None:
    """Give the app a route that fails in an unforeseen way."""
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
def test_every_answer_bears_the_name(
    client: TestClient, method: str, path: str, content: bytes | None, status: int
) -> None:
    broken(client)
    answer = client.request(method, path, content=content, headers={"X-Request-Id": "req-1:a/b+c=@~._Z"})
    assert (answer.status_code, answer.headers["x-request-id"]) == (status, "req-1:a/b+c=@~._Z")
    assert answer.headers.get_list("x-request-id") == ["req-1:a/b+c=@~._Z"]
    assert MADE.fullmatch(client.request(method, path, content=content).headers["x-request-id"])


@pytest.mark.parametrize("name", ["", "a b", "a\tb", "x" * 129, "<script>", "ü".encode(), b"a\x1b[31m"])
def test_what_could_spoil_a_log_is_no_name(client: TestClient, name: str | bytes) -> None:
    raw = name if isinstance(name, bytes) else name.encode()
    found = {client.get("/livez", headers={b"X-Request-Id": raw}).headers["x-request-id"] for _ in range(2)}
    assert len(found) == 2
    assert all(MADE.fullmatch(each) for each in found)


def test_every_line_of_a_request_bears_its_name(client: TestClient, lines: list[Any], other_bundle: Any) -> None:
    """Those of threads too, and those of the next request bear another."""
    client.post("/v1/models", content=zipped(other_bundle), headers={"X-Request-Id": "upload"})
    client.post("/v1/models/20260102T000000-bbbbbbbb/activate", headers={"X-Request-Id": "activate"})
    named = {(line["event"], line.get("request_id")) for line in lines}
    assert {("model imported", "upload"), ("model activated", "activate")} <= named
    assert {("request", "upload"), ("request", "activate")} <= named


def test_an_unforeseen_error_bears_it_too(client: TestClient, lines: list[Any]) -> None:
    broken(client)
    client.get("/v1/broken", headers={"X-Request-Id": "bad-luck"})
    assert [(line["event"], line["request_id"]) for line in lines if line["event"] != "request"] == [
        ("unexpected error", "bad-luck")
    ]
    (request,) = (line for line in lines if line["event"] == "request")
    assert (request["status"], request["request_id"]) == (500, "bad-luck")


def test_lines_tell_the_trace_where_there_is_one(
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


def test_probes_are_counted_and_make_no_lines(client: TestClient, lines: list[Any]) -> None:
    for path in ("/livez", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"):
        client.get(path)
    assert [line for line in lines if line["event"] == "request"] == []
    assert 'route="/livez",status="200"' in client.get("/metrics").text


def test_neither_bodies_nor_headers_nor_queries_are_logged(client: TestClient, lines: list[Any]) -> None:
    headers = {"Authorization": "Bearer SECRET", "X-API-Key": "SECRET", "Cookie": "SECRET"}
    for content in (encoded(picture()), b"SECRET" * 100, b""):
        client.post("/v1/segment?key=SECRET", content=content, headers=headers)
    client.post("/v1/images?key=SECRET", files={"file": ("SECRET.png", b"SECRET")}, headers=headers)
    assert sum(line["event"] == "request" for line in lines) == 4
    assert "SECRET" not in str(lines)


def test_a_path_cannot_write_lines_of_its_own(client: TestClient, lines: list[Any]) -> None:
    client.get("/v1/x%0Aup%20%7C%20ready")
    client.get("/" + "y" * 5000)
    first, second = (line["path"] for line in lines if line["event"] == "request")
    assert first == "'/v1/x\\nup | ready'"
    assert len(second) == 200


def test_an_image_refused_for_its_rate_is_a_rejection(client: TestClient) -> None:
    app, value = client.app, client.app_state["maskloop"].metrics.registry.get_sample_value
    assert isinstance(app, FastAPI)
    app.add_api_route("/v9/segment", lambda: Response(status_code=429))
    app.add_api_route("/v9/other", lambda: Response(status_code=429))
    for path in ("/v9/segment", "/v9/other"):
        assert client.get(path).status_code == 429
    assert value("maskloop_segment_rejected_total", {"reason": "rate_limited"}) == 1
