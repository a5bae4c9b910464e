"""A service as a person starts it: a real process on a real port."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

START_LIMIT_S = 60


class Serve(Protocol):
    """Starts `python -m service serve` on a bundle (None: the starter model), and gives its address."""

    def __call__(self, bundle: Path | None, **settings: str) -> str:
        """With settings as in service/settings.py, by their names."""


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts services that end with the test."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(bundle: Path | None, **settings: str) -> str:
        port = free_port()
        command = [
            sys.executable,
            "-m",
            "service",
            "serve",
            "--port",
            str(port),
            "--data-dir",
            str(tmp_path / f"data{port}"),
        ]
        command += ["--model", str(bundle)] if bundle else []
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MASKLOOP_")}
        own = {f"MASKLOOP_{name.upper()}": value for name, value in settings.items()}
        processes.append(subprocess.Popen(command, env=environment | own))
        address = f"http://127.0.0.1:{port}"
        wait_until_ready(address, processes[-1])
        return address

    yield start
    for process in processes:
        process.terminate()
        process.wait(timeout=30)


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def wait_until_ready(address: str, process: subprocess.Popen[bytes]) -> None:
    """Return when /readyz answers 200."""
    for _ in range(START_LIMIT_S * 20):
        assert process.poll() is None, "the service ended at its start"
        try:
            with urllib.request.urlopen(f"{address}/readyz", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.05)
    pytest.fail("the service was not ready in time")


def post(address: str, data: bytes, accept: str = "image/png") -> bytes:
    """POST an image to /v1/segment and return the answer's body."""
    headers = {"Content-Type": "application/octet-stream", "Accept": accept}
    request = urllib.request.Request(f"{address}/v1/segment", data=data, headers=headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        body: bytes = answer.read()
        return body


def program(*arguments: str) -> dict[str, object]:
    """Run `python -m ARGUMENTS` to its end and return the last JSON line that it printed."""
    done = subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    last: dict[str, object] = json.loads(done.stdout.strip().splitlines()[-1])
    return last
