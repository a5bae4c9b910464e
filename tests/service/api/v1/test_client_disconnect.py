"""Clients that disconnect while they wait, over real connections, with an engine that is held."""

from __future__ import annotations

import dataclasses
import http.client
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

from service.api.app import create_app
from service.settings import Settings
from service.state import State
from tests.service.conftest import encoded, eventually
from tests.service.segmentation.test_pipeline import HeldEngine
from tests.service.tiny_bundle import picture

IMAGE = encoded(picture())
REQUEST = f"POST /v1/segment HTTP/1.1\r\nHost: x\r\nContent-Length: {len(IMAGE)}\r\n\r\n".encode() + IMAGE


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


@pytest.fixture
def state(settings: Settings, listener: socket.socket) -> Iterator[State]:
    """State of an app that a real uvicorn serves in a thread."""
    server = uvicorn.Server(uvicorn.Config(create_app(settings), log_config=None, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        eventually(lambda: server.started)
        state: State = server.lifespan.state["maskloop"]
        eventually(lambda: state.active_model.current is not None)
        yield state
    finally:
        server.should_exit = True
        thread.join(30)


def test_requests_of_disconnected_clients_are_not_inferred(state: State, bundle: Path, listener: socket.socket) -> None:
    engine, address = HeldEngine(bundle / "model.onnx"), listener.getsockname()
    state.active_model.stop()
    current = state.active_model.require()
    state.active_model._current = dataclasses.replace(current, engine=engine)

    def metric(name: str, **labels: str) -> float:
        return state.metrics.registry.get_sample_value(name, labels) or 0.0

    with socket.create_connection(address, timeout=60) as first:
        first.sendall(REQUEST)
        assert engine.started.wait(20)
        waiting = [socket.create_connection(address) for _ in range(4)]
        for client in waiting:
            client.sendall(REQUEST)
        eventually(lambda: metric("maskloop_segment_admitted") == 5)
        for client in waiting:
            client.close()
        # The event loop has processed the disconnects once it answers this request.
        connection = http.client.HTTPConnection("127.0.0.1", address[1], timeout=20)
        connection.request("GET", "/livez")
        assert connection.getresponse().read()
        connection.close()
        engine.release.set()
        assert b" 200 " in first.recv(100)
        eventually(lambda: metric("maskloop_segment_admitted") == 0)
    assert metric("maskloop_segment_rejected_total", reason="client_gone") == 4
    assert engine.runs == 1
