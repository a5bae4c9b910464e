"""A real service on a real port, and a client for it."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import uvicorn
from pydantic import SecretStr

from service.api.app import create_app
from service.settings import Settings
from service.state import State
from tests.service.conftest import TEST_KEY, encoded, eventually
from tests.service.tiny_bundle import COLORS, picture, write_bundle

FIRST, SECOND = "20260101T000000-aaaaaaaa", "20260102T000000-bbbbbbbb"
IMAGE = picture()
PNG = encoded(IMAGE)


@dataclass(frozen=True)
class Response:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """Check that this is an error of the protocol, and return its message."""
        assert self.status >= 400
        assert self.headers["content-type"] == "application/json"
        fields = self.json()
        assert list(fields) == ["error"]
        assert isinstance(fields["error"], str)
        return str(fields["error"])

    def split(self) -> tuple[Any, bytes]:
        """Return the JSON and the tensors that follow it."""
        length = int(self.headers["inference-header-content-length"])
        return json.loads(self.body[:length]), self.body[length:]


@dataclass(frozen=True)
class Server:
    port: int
    state: State

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> Response:
        """Send a request with the configured key over a new connection; underscores in header names become hyphens."""
        if isinstance(body, dict):
            body = json.dumps(body).encode()
        key = self.state.settings.api_key.get_secret_value()
        headers = ({"X-API-Key": key} if key else {}) | headers
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            response = connection.getresponse()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return Response(response.status, headers, response.read())
        finally:
            connection.close()

    def infer(self, model: str, body: Any, **headers: str) -> Response:
        return self.request("POST", f"/v2/models/{model}/infer", body, **headers)

    def infer_binary(self, model: str, fields: dict[str, Any], tensors: bytes = b"", **headers: str) -> Response:
        head = json.dumps(fields).encode()
        return self.infer(model, head + tensors, Inference_Header_Content_Length=str(len(head)), **headers)


def tensor(image: np.ndarray[Any, Any] = IMAGE, **more: Any) -> dict[str, Any]:
    """Return the JSON input for one image."""
    return {"name": "image", "datatype": "UINT8", "shape": [1, *image.shape], "data": image.tolist()} | more


@contextmanager
def serving(settings: Settings) -> Iterator[Server]:
    """Run a service in a thread until the end of the block; its model is ready."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        server = uvicorn.Server(uvicorn.Config(create_app(settings), log_config=None, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        try:
            eventually(lambda: server.started)
            state: State = server.lifespan.state["maskloop"]
            eventually(lambda: state.active_model.current is not None)
            yield Server(sock.getsockname()[1], state)
        finally:
            server.should_exit = True
            thread.join(30)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service with two versions of one bundle; the first is active."""
    folder = tmp_path_factory.mktemp("served")
    settings = Settings(
        data_dir=folder / "data",
        api_key=SecretStr(TEST_KEY),
        model=str(write_bundle(folder / "bundle", version=FIRST)),
        model_poll_s=0.05,
        inference_threads=1,
        max_image_pixels=100_000,
        max_image_bytes=200_000,
        retrain_after_images=1_000_000,
        retrain_after_labels=0,
        # No test depends on the speed of the machine.
        max_wait_s=60.0,
    )
    with serving(settings) as running:
        other = write_bundle(folder / "other", version=SECOND, colors=COLORS[::-1])
        running.state.models.import_folder(other)
        yield running
