"""The service as a process: imports, start, requests over real sockets, and shutdown."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tests.service.conftest import TEST_KEY, encoded, eventually, read
from tests.service.tiny_bundle import COLORS, nearest, picture, zipped

SERVER = """
import sys
from service.serve import serve
from service.settings import Settings
serve(Settings(port=int(sys.argv[1])))
"""

FORBIDDEN = ("torch", "onnx", "timm", "trainer", "exporter", "torchvision", "safetensors")


def test_service_imports_neither_torch_nor_trainer_nor_exporter() -> None:
    program = (
        "import importlib, json, pkgutil, sys, service\n"
        "for m in pkgutil.walk_packages(service.__path__, 'service.'):\n"
        # Importing these would run them.
        "    if not m.name.endswith(('__main__', 'migrations.env')): importlib.import_module(m.name)\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    loaded = set(json.loads(output.stdout))
    assert "service.api.app" in loaded
    assert "service.segmentation.inference.engine" in loaded
    assert loaded.isdisjoint(FORBIDDEN)


def test_app_imports_neither_celery_nor_alembic_nor_onnxruntime() -> None:
    """They take seconds to import, and are needed later, rarely, or in another thread."""
    program = "import json, sys, service.api.app\nprint(json.dumps(sorted(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert set(json.loads(output.stdout)).isdisjoint({"celery", "alembic", "onnxruntime", "pycocotools"})


def test_serve_imports_the_http_side_after_the_model_loads() -> None:
    """The imports before the loading thread starts must not include slow ones that are needed later."""
    program = "import json, sys, service.serve\nprint(json.dumps(sorted(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    loaded = set(json.loads(output.stdout))
    assert "service.models.active_model" in loaded
    assert loaded.isdisjoint({"fastapi", "starlette", "uvicorn", "sqlalchemy.dialects.postgresql"})


def test_garbage_collection_resumes_and_skips_permanent_objects() -> None:
    program = (
        "import gc; gc.disable()\nfrom service.serve import resume_garbage_collection\nresume_garbage_collection()\n"
        "assert gc.isenabled(); assert gc.get_freeze_count() > 50_000; assert len(gc.get_objects()) < 1000"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


class Server:
    """A real server process, reached over a real socket."""

    def __init__(self, bundle: Path, data_dir: Path, **settings: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        environment = os.environ | {
            "MASKLOOP_DATA_DIR": str(data_dir),
            "MASKLOOP_MODEL": str(bundle),
            "MASKLOOP_API_KEY": TEST_KEY,
            "MASKLOOP_MAX_IMAGE_BYTES": "200000",
            "MASKLOOP_LOG_LEVEL": "WARNING",
        }
        environment |= {f"MASKLOOP_{name.upper()}": value for name, value in settings.items()}
        self.began = time.monotonic()
        self.process = subprocess.Popen([sys.executable, "-c", SERVER, str(self.port)], env=environment)

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, {"X-API-Key": TEST_KEY})
            response = connection.getresponse()
            return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
        finally:
            connection.close()

    def metric(self, name: str) -> float:
        found = re.search(rf"^{name} (\S+)$", self.ask("GET", "/metrics")[2].decode(), re.MULTILINE)
        return float(found[1]) if found else 0.0

    def wait_ready(self) -> float:
        """Seconds from the process start to ready."""
        while time.monotonic() < self.began + 60:
            try:
                if self.ask("GET", "/readyz")[0] == 200:
                    return time.monotonic() - self.began
            except OSError:
                assert self.process.poll() is None, "the server ended"
            time.sleep(0.02)
        pytest.fail("never ready")


@pytest.fixture
def server(bundle: Path, tmp_path: Path) -> Iterator[Server]:
    running = Server(bundle, tmp_path / "served")
    running.wait_ready()
    yield running
    if running.process.poll() is None:
        running.process.terminate()
    running.process.wait(30)


def test_segmentation_over_a_real_socket(server: Server) -> None:
    image = picture(100, 60)
    status, headers, body = server.ask("POST", "/v1/segment", encoded(image))
    assert status == 200
    assert headers["content-type"] == "image/png"
    np.testing.assert_array_equal(read(body), nearest(image, COLORS))
    status, headers, body = server.ask("POST", "/v1/segment", bytes(400_000))
    assert (status, headers["content-type"]) == (413, "application/problem+json")
    assert server.ask("POST", "/v1/segment", encoded(image))[0] == 200


def test_activated_model_serves(server: Server, other_bundle: Path) -> None:
    assert server.ask("POST", "/v1/models", zipped(other_bundle))[0] == 201
    version = "20260102T000000-bbbbbbbb"
    assert server.ask("POST", f"/v1/models/{version}/activate?wait_s=60")[0] == 200
    assert server.ask("POST", "/v1/segment", encoded(picture()))[1]["x-model-version"] == version


@contextmanager
def running(bundle: Path, data_dir: Path, **settings: str) -> Iterator[Server]:
    server = Server(bundle, data_dir, **settings)
    try:
        server.wait_ready()
        yield server
    finally:
        server.process.terminate()
        server.process.wait(30)


@contextmanager
def half_sent(server: Server, path: str, body: bytes, announced: int) -> Iterator[socket.socket]:
    """A client that sends fewer bytes than its Content-Length."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {TEST_KEY}\r\nContent-Length: {announced}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
        client.sendall(head + body)
        yield client


@pytest.mark.parametrize(
    ("path", "places"),
    [("/v1/segment", "maskloop_segment_admitted"), ("/v1/images", "maskloop_uploads_admitted")],
)
def test_place_is_taken_before_the_body_and_freed_after_a_timeout(
    bundle: Path, tmp_path: Path, path: str, places: str
) -> None:
    image = encoded(picture())
    with running(bundle, tmp_path / "served", max_concurrent_requests="1", receive_timeout_s="8") as server:
        # The second client is rejected before it sends its body.
        with half_sent(server, path, image[:100], len(image)) as slow:
            eventually(lambda: server.metric(places) == 1)
            with half_sent(server, path, b"", len(image)) as second:
                assert b" 503 " in second.recv(100)
            assert b" 408 " in slow.recv(100)
        eventually(lambda: server.metric(places) == 0)
        assert server.ask("POST", path, image)[0] < 300


def test_sigterm_stops_the_server(server: Server) -> None:
    server.process.send_signal(signal.SIGTERM)
    # uvicorn raises the signal again after its shutdown.
    assert server.process.wait(30) in (0, -signal.SIGTERM)


def test_time_until_ready(bundle: Path, tmp_path: Path) -> None:
    """About 2 s on an idle machine; `pytest -s` prints it. The asserted limit holds on any machine."""
    server = Server(bundle, tmp_path / "data")
    try:
        took_s = server.wait_ready()
    finally:
        server.process.terminate()
        server.process.wait(30)
    print(f"ready {took_s:.2f} s after the process start")  # noqa: T201 - the purpose of this test
    assert took_s < 30
