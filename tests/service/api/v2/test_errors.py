"""Errors under /v2: every one is an object with the single key "error", whatever raised it."""

from __future__ import annotations

import gzip
import json
import socket
import zlib
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st

from service.api.app import create_app
from service.state import State
from tests.service.api.v2.conftest import IMAGE, PNG, Server, serving, tensor
from tests.service.conftest import MakeSettings, encoded, eventually
from tests.service.tiny_bundle import picture

LIMIT = 3 * 100_000 + 64 * 1024
MEGABYTES = bytes(4_000_000)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/nothing", 404),
        ("GET", "/v2/models/nothing", 404),
        ("GET", "/v2/models/seg/versions/9", 404),
        ("GET", "/v2/models/seg/versions/-1/ready", 404),
        ("GET", "/v2/models/nothing/config", 404),
        ("GET", "/v2/models/nothing/stats", 404),
        ("POST", "/v2/models/nothing/infer", 404),
        ("POST", "/v2/models/seg/versions/9/infer", 404),
        ("POST", "/v2/repository/models/nothing/unload", 404),
        ("POST", "/v2/models/seg/generate", 404),
        ("GET", "/v2/models/a%2Fb", 404),
        ("GET", "/v2/models/%00%ff", 404),
        ("GET", "/v2/models/seg/infer", 405),
        ("POST", "/v2", 405),
        ("DELETE", "/v2/models/seg", 405),
        ("GET", "/v2/repository/index", 405),
        ("GET", "/v2/systemsharedmemory/status", 501),
        ("POST", "/v2/cudasharedmemory/region/a/register", 501),
        ("GET", "/v2/trace/setting", 501),
        ("POST", "/v2/models/seg/trace/setting", 501),
        ("POST", "/v2/logging", 501),
    ],
)
def test_unknown_path_or_method_is_an_error(server: Server, method: str, path: str, status: int) -> None:
    response = server.request(method, path)
    assert response.status == status
    assert response.error


@pytest.mark.parametrize("path", ["/v2/repository/index", "/v2/repository/models/seg/load"])
def test_large_body_without_tensors_gets_413(server: Server, path: str) -> None:
    """These calls have no admission control, so only the size limits the memory of their bodies."""
    response = server.request("POST", path, b" " * 100_000)
    assert response.status == 413
    assert response.error


@pytest.mark.parametrize(
    "path", ["/v2/repository/index", "/v2/repository/models/seg/load", "/v2/repository/models/seg/unload"]
)
@pytest.mark.parametrize("body", [b"[]", b"{", b"\xff", b'{"ready": 1, "parameters": 5}', b"[" * 50_000])
def test_invalid_repository_request_gets_400(server: Server, path: str, body: bytes) -> None:
    response = server.request("POST", path, body)
    assert response.status == 400
    assert response.error


@pytest.mark.parametrize(
    ("body", "headers", "status", "message"),
    [
        (b"", {}, 400, "empty"),
        (PNG, {}, 400, "Inference-Header-Content-Length: 0"),
        (PNG, {"Inference_Header_Content_Length": "0"}, 400, "height and width"),
        (b"{}", {"Inference_Header_Content_Length": "3"}, 400, "send the length"),
        (b"{}", {"Inference_Header_Content_Length": "-1"}, 400, "send the length"),
        (b"{}", {"Content_Encoding": "br"}, 415, "gzip, deflate or none"),
        (b"{}", {"Content_Encoding": "gzip"}, 400, "not valid gzip"),
        (gzip.compress(b"{}", mtime=0)[:-3], {"Content_Encoding": "gzip"}, 400, "truncated"),
        (gzip.compress(MEGABYTES, mtime=0), {"Content_Encoding": "gzip"}, 413, f"{LIMIT} bytes"),
        (zlib.compress(MEGABYTES), {"Content_Encoding": "deflate"}, 413, f"{LIMIT} bytes"),
        (MEGABYTES, {}, 413, f"{LIMIT} bytes"),
        ([bytes(100_000)] * 5, {}, 413, f"{LIMIT} bytes"),
    ],
)
def test_invalid_inference_body_is_rejected(
    server: Server, body: Any, headers: dict[str, str], status: int, message: str
) -> None:
    response = server.infer("seg", body, **headers)
    assert response.status == status
    assert message in response.error


def test_too_large_image_gets_413(server: Server) -> None:
    large = np.zeros((250, 401, 3), np.uint8)
    response = server.infer_binary(
        "seg", {"inputs": [tensor(large, data=None, parameters={"binary_data_size": large.size})]}, large.tobytes()
    )
    assert response.status == 413
    assert "MASKLOOP_MAX_IMAGE_PIXELS" in response.error
    response = server.infer("seg_bytes", encoded(large), Inference_Header_Content_Length="0")
    assert response.status == 413
    assert "100000 are allowed" in response.error


@pytest.mark.parametrize(
    ("file", "status", "message"),
    [
        (b"hello", 415, "send the bytes of the file"),
        (b"\0", 415, "convert"),
        (PNG[:200], 400, "damaged"),
        (encoded(picture(400, 300), "JPEG"), 413, "scale it down"),
    ],
)
def test_one_invalid_image_fails_the_request(server: Server, file: bytes, status: int, message: str) -> None:
    tensors = b"".join(len(one).to_bytes(4, "little") + one for one in (PNG, file, PNG))
    given_input = {
        "name": "image_bytes",
        "datatype": "BYTES",
        "shape": [3],
        "parameters": {"binary_data_size": len(tensors)},
    }
    response = server.infer_binary("seg_bytes", {"inputs": [given_input]}, tensors)
    assert response.status == status
    assert message in response.error


def test_unexpected_error_leaks_no_details(make_settings: MakeSettings) -> None:
    app = create_app(make_settings())
    assert isinstance(app, FastAPI)

    @app.get("/v2/broken")
    def broken(number: int) -> None:
        raise RuntimeError("the password is 1234")

    with TestClient(app, raise_server_exceptions=False) as client:
        for query, status in (("?number=1", 500), ("?number=x", 422)):
            response = client.get(f"/v2/broken{query}")
            assert response.status_code == status
            assert list(response.json()) == ["error"]
            assert "1234" not in response.text


def test_overload_and_missing_model_get_503(make_settings: MakeSettings) -> None:
    with serving(make_settings(max_concurrent_requests=1)) as server:
        state: State = server.state
        state.pipeline._gate._interactive = 1
        response = server.infer("seg", {"inputs": [tensor()]})
        assert (response.status, response.headers["retry-after"]) == (503, "1")
        assert "MASKLOOP_MAX_CONCURRENT_REQUESTS" in response.error
        state.pipeline._gate._interactive = 0
        (failed,) = [one["inference_stats"]["fail"] for one in _stats(server) if one["name"] == "seg"]
        assert failed["count"] == 1
        state.active_model.stop()
        eventually(lambda: not state.active_model._thread or not state.active_model._thread.is_alive())
        state.active_model._current = None
        for method, path in (
            ("GET", "/v2/health/ready"),
            ("GET", "/v2/models/seg/ready"),
            ("POST", "/v2/models/tiny/infer"),
        ):
            response = server.request(method, path)
            assert response.status == 503
            assert "No model is ready" in response.error
        assert server.request("GET", "/v2/health/live").status == 200


def _stats(server: Server) -> Any:
    return server.request("GET", "/v2/models/stats").json()["model_stats"]


HEADER = st.none() | st.integers(-2, 400).map(str) | st.text("0123456789+-. x", max_size=5)
CHANGES = st.dictionaries(
    st.sampled_from(["name", "datatype", "shape", "data", "parameters"]),
    st.none() | st.integers() | st.text(max_size=4) | st.lists(st.integers(-2, 300) | st.none(), max_size=5),
    max_size=3,
)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A valid request, damaged."""
    small = tensor(IMAGE[:2, :2]) | draw(CHANGES)
    body = json.dumps({"inputs": [small]}).encode() + draw(st.binary(max_size=8))
    begin, end = sorted((draw(st.integers(0, len(body))), draw(st.integers(0, len(body)))))
    return draw(st.sampled_from([body, body[:begin], body[:begin] + body[end:]]))


@settings(max_examples=150, deadline=None)
@given(
    body=bodies() | st.binary(max_size=60),
    header=HEADER,
    encoding=st.sampled_from(["", "gzip", "deflate", "x"]),
    model=st.sampled_from(["seg", "seg_bytes"]),
)
def test_malformed_request_gets_4xx(server: Server, body: bytes, header: str | None, encoding: str, model: str) -> None:
    headers = {} if header is None else {"Inference-Header-Content-Length": header}
    headers |= {"Content-Encoding": encoding} if encoding else {}
    response = server.infer(model, body, **headers)
    assert response.status in (200, 400, 413, 415)
    if response.status != 200:
        assert response.error


def test_queued_large_bodies_are_not_admitted(make_settings: MakeSettings) -> None:
    """Of seven slow large bodies, four are admitted; two of six places remain for images."""
    with serving(make_settings(max_concurrent_requests=6, max_image_bytes=100_000)) as server, ExitStack() as clients:
        head = b"POST /v2/models/seg/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n"
        for _ in range(7):
            client = clients.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=60))
            client.sendall(head)
        eventually(lambda: server.state.metrics.registry.get_sample_value("maskloop_segment_admitted") == 4)
        assert server.request("POST", "/v1/segment", PNG).status == 200
