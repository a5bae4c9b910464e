"""`POST /v1/segment/batch`: many images in one request, one result line for each as it is ready."""

from __future__ import annotations

import base64
import dataclasses
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from fastapi.testclient import TestClient
from pycocotools import mask as coco

from service.api.app import create_app
from service.segmentation.inference.predictor import Prediction
from service.settings import Settings
from service.state import State
from tests.service.conftest import MakeSettings, encoded, eventually, read, sample, serve
from tests.service.segmentation.test_pipeline import HeldEngine
from tests.service.tiny_bundle import COLORS, NAMES, nearest, picture

URL = "/v1/segment/batch"
PICTURES = [picture(40 + number, 30, seed=number) for number in range(12)]


def form(*contents: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("file", (f"photo {number}.png", content)) for number, content in enumerate(contents)]


def lines(response: Any) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("application/x-ndjson")
    return sorted((json.loads(line) for line in response.text.splitlines()), key=lambda line: line["index"])


# pycocotools 2.0.11 does not know numpy 2's `copy` argument yet; only its decoder warns.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_every_image_gets_a_line(client: TestClient) -> None:
    results = lines(client.post(URL, files=form(*(encoded(image) for image in PICTURES))))
    assert [line["index"] for line in results] == list(range(len(PICTURES)))
    for image, line in zip(PICTURES, results, strict=True):
        truth = nearest(image, COLORS)
        assert (line["filename"], line["status"]) == (f"photo {line['index']}.png", 200)
        assert "problem" not in line
        assert line["result"]["width"] == image.shape[1]
        assert {entry["id"] for entry in line["result"]["classes"]} == set(np.unique(truth).tolist())
        for entry in line["result"]["classes"]:
            np.testing.assert_array_equal(coco.decode(entry["rle"]), truth == entry["id"])


def test_invalid_image_does_not_fail_the_others(make_settings: MakeSettings) -> None:
    good = encoded(picture())
    large = encoded(np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8))
    with serve(make_settings(max_image_bytes=20_000)) as client:
        assert len(good) < 20_000 < len(large)
        results = lines(client.post(URL, files=form(good, b"no image", good[:200], b"", large, good)))
        assert [line["status"] for line in results] == [200, 415, 400, 400, 413, 200]
        for line in results[1:5]:
            assert line["problem"]["type"].startswith("urn:maskloop:problem:")
            assert line["problem"]["status"] == line["status"]
            assert ":" in line["problem"]["detail"]
            assert "result" not in line
        assert results[0]["result"]["classes"] == results[5]["result"]["classes"]


def test_parameters_apply_to_every_image(client: TestClient) -> None:
    params: dict[str, str | bool] = {"masks": "png", "classes": "red", "confidence": True, "polygons": True}
    results = lines(client.post(URL, files=form(*(encoded(image) for image in PICTURES[:3])), params=params))
    for image, line in zip(PICTURES, results, strict=False):
        truth = nearest(image, COLORS)
        mask = read(base64.b64decode(line["result"]["mask_png"]))
        np.testing.assert_array_equal(mask, np.where(truth == NAMES.index("red"), truth, 255))
        assert read(base64.b64decode(line["result"]["confidence_png"])).shape == mask.shape
        assert [entry["name"] for entry in line["result"]["classes"]] == ["red"]
        assert "polygons" in line["result"]["classes"][0]


@pytest.mark.parametrize(
    ("request_arguments", "status", "message"),
    [
        ({"content": encoded(picture())}, 400, "form"),
        ({"files": form(*[b"x"] * 4)}, 400, "MASKLOOP_MAX_BATCH_IMAGES"),
        ({"files": {"other": ("a", b"x")}}, 400, "named `file`"),
        ({"files": form(bytes(60_000))}, 413, "MASKLOOP_MAX_BATCH_BYTES"),
        ({"files": form(b"x"), "params": {"classes": "zebra"}}, 422, "0 red"),
        ({"files": form(b"x"), "params": {"model": "none"}}, 404, "none"),
        ({"files": form(b"x"), "params": {"masks": "gif"}}, 422, "masks"),
    ],
)
def test_invalid_batch_gets_a_problem(
    make_settings: MakeSettings, request_arguments: dict[str, Any], status: int, message: str
) -> None:
    with serve(make_settings(max_batch_images=3, max_batch_bytes=20_000)) as client:
        response = client.post(URL, **request_arguments)
        assert response.status_code == status
        assert response.headers["content-type"] == "application/problem+json"
        assert message in response.json()["detail"]
        # Its capacity is free again.
        assert lines(client.post(URL, files=form(encoded(picture()))))[0]["status"] == 200
        assert "maskloop_batches_admitted 0.0" in client.get("/metrics").text
        assert "maskloop_segment_admitted 0.0" in client.get("/metrics").text


def test_images_after_the_deadline_get_504(client: TestClient) -> None:
    slow = form(*[encoded(picture(900, 900))] * 20)
    results = lines(client.post(URL, files=slow, headers={"X-Request-Timeout-Ms": "60"}))
    assert results[-1]["status"] == 504
    assert results[-1]["problem"]["type"] == "urn:maskloop:problem:deadline-passed"


def test_unexpected_error_fails_one_image_and_is_not_disclosed(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    state: State = client.app_state["maskloop"]
    engine = state.active_model.require().engine
    run = engine.run

    def broken(image_HW3: Any, *rest: Any) -> Prediction:
        if image_HW3.shape[1] == 41:
            raise RuntimeError("the password is 1234")
        return run(image_HW3, *rest)

    monkeypatch.setattr(engine, "run", broken)
    results = lines(client.post(URL, files=form(*(encoded(image) for image in PICTURES[:3]))))
    assert [line["status"] for line in results] == [200, 500, 200]
    assert "1234" not in json.dumps(results)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


@pytest.fixture
def limited_settings(make_settings: MakeSettings) -> Settings:
    return make_settings(max_concurrent_batches=1, max_concurrent_requests=4)


@pytest.fixture
def state(limited_settings: Settings, listener: socket.socket, bundle: Path) -> Iterator[State]:
    """State of an app that a real uvicorn serves, with an engine that is held."""
    server = uvicorn.Server(uvicorn.Config(create_app(limited_settings), log_config=None, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        eventually(lambda: server.started)
        state: State = server.lifespan.state["maskloop"]
        eventually(lambda: state.active_model.current is not None)
        state.active_model.stop()
        state.active_model._current = dataclasses.replace(
            state.active_model.require(), engine=HeldEngine(bundle / "model.onnx")
        )
        yield state
    finally:
        server.should_exit = True
        thread.join(30)


def body_of(count: int) -> tuple[bytes, dict[str, str]]:
    request = httpx.Request("POST", "http://x", files=form(*[encoded(picture())] * count))
    return request.read(), {"Content-Type": request.headers["content-type"]}


def connect(listener: socket.socket) -> http.client.HTTPConnection:
    host, port = listener.getsockname()
    return http.client.HTTPConnection(host, port, timeout=60)


def metric(state: State, name: str, **labels: str) -> float:
    return sample(state.metrics, name, **labels) or 0.0


def held_engine(state: State) -> HeldEngine:
    engine = state.active_model.require().engine
    assert isinstance(engine, HeldEngine)
    return engine


def test_disconnect_stops_the_remaining_images(state: State, listener: socket.socket) -> None:
    engine = held_engine(state)
    content, headers = body_of(10)
    connection = connect(listener)
    connection.request("POST", URL, content, headers)
    assert engine.started.wait(20)
    # A few images are in progress; the others wait on the disk.
    assert 0 < metric(state, "maskloop_segment_admitted") <= 2
    connection.close()
    eventually(lambda: metric(state, "maskloop_batches_admitted") == 0)
    assert metric(state, "maskloop_segment_admitted") == 0
    engine.release.set()
    assert engine.runs <= 2


def test_disconnect_removes_the_queued_images(state: State, listener: socket.socket) -> None:
    engine, single = held_engine(state), encoded(picture())
    connections = [connect(listener) for _ in range(2)]
    for connection in connections:
        connection.request("POST", "/v1/segment", single)
    eventually(lambda: metric(state, "maskloop_segment_admitted") == 2)
    content, headers = body_of(5)
    batch = connect(listener)
    batch.request("POST", URL, content, headers)
    eventually(lambda: state.pipeline._gate._batch.demand == 2)
    batch.close()
    eventually(lambda: metric(state, "maskloop_batches_admitted") == 0)
    assert state.pipeline._gate._batch.demand == 0
    engine.release.set()
    assert [connection.getresponse().status for connection in connections] == [200] * 2
    assert engine.runs == 2
    for connection in connections:
        connection.close()


def test_lines_are_sent_while_other_images_are_in_progress(state: State, listener: socket.socket) -> None:
    engine = held_engine(state)
    content, headers = body_of(3)
    content = content.replace(encoded(picture()), b"no image", 1)
    connection = connect(listener)
    connection.request("POST", URL, content, headers)
    answer = connection.getresponse()
    first = json.loads(answer.readline())
    assert (first["index"], first["status"]) == (0, 415)
    assert not engine.release.is_set()
    engine.release.set()
    rest = [json.loads(line) for line in answer.read().splitlines()]
    assert sorted((line["index"], line["status"]) for line in rest) == [(1, 200), (2, 200)]
    connection.close()


def test_batch_above_the_limit_gets_503_at_once(state: State, listener: socket.socket) -> None:
    engine = held_engine(state)
    content, headers = body_of(2)
    first, second = (connect(listener) for _ in range(2))
    first.request("POST", URL, content, headers)
    assert engine.started.wait(20)
    second.request("POST", URL, content, headers)
    answer = second.getresponse()
    assert answer.status == 503
    assert answer.headers["retry-after"] == "1"
    assert "MASKLOOP_MAX_CONCURRENT_BATCHES" in json.loads(answer.read())["detail"]
    engine.release.set()
    assert len(first.getresponse().read().splitlines()) == 2
    first.close()
    second.close()


def test_batch_waits_for_capacity_that_single_images_use(state: State, listener: socket.socket) -> None:
    """Single images use the whole capacity; the batch runs after them, and none of its images is rejected."""
    engine = held_engine(state)
    single = encoded(picture())
    connections = [connect(listener) for _ in range(4)]
    for connection in connections:
        connection.request("POST", "/v1/segment", single)
    eventually(lambda: metric(state, "maskloop_segment_admitted") == 4)
    content, headers = body_of(3)
    batch = connect(listener)
    batch.request("POST", URL, content, headers)
    eventually(lambda: state.pipeline._gate._batch.demand == 2)
    engine.release.set()
    assert [connection.getresponse().status for connection in connections] == [200] * 4
    statuses = [json.loads(line)["status"] for line in batch.getresponse().read().splitlines()]
    assert statuses == [200] * 3
    assert metric(state, "maskloop_segment_rejected_total", reason="overloaded") == 0
    for connection in (*connections, batch):
        connection.close()
