"""Start the service as a process and send requests over HTTP."""

import http.client
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

from service.keys.api_key import read_local_key
from service.parent_watch import killed_with_parent
from tests.benchmarks.serving.loads import Target
from tests.benchmarks.serving.processes import process_tree, resident_bytes
from tests.contract.conftest import free_port

START_TIMEOUT_S, STOP_TIMEOUT_S = 60.0, 60.0
REQUEST_TIMEOUT_S = 60.0


class Service:
    """A running `python -m service serve`, a context manager that ends it."""

    def __init__(self, data_dir: Path, bundle: Path | None = None, **settings: str) -> None:
        """Start it and wait until it is ready.

        Args:
            data_dir: Its data folder.
            bundle: The model; None: the starter model.
            settings: Settings by their names in service/settings.py.
        """
        self.port = free_port()
        words = [sys.executable, "-m", "service", "serve", "--port", str(self.port), "--data-dir", str(data_dir)]
        words += ["--model", str(bundle)] if bundle else []
        variables = {f"MASKLOOP_{name.upper()}": value for name, value in settings.items()}
        environment = os.environ | {"MASKLOOP_LOG_LEVEL": "WARNING"} | variables
        self._headers: dict[str, str] = {}
        self.process = subprocess.Popen(killed_with_parent(words), env=environment, start_new_session=True)
        try:
            self._wait_until_ready()
            if key := read_local_key(data_dir):
                self._headers["X-API-Key"] = key
        except BaseException:
            self.stop()
            raise

    def _wait_until_ready(self) -> None:
        end = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise RuntimeError(f"the service ended with exit code {self.process.returncode}")
            try:
                if self.request("GET", "/readyz")[0] == 200:
                    return
            except OSError:
                time.sleep(0.02)
        raise RuntimeError(f"the service was not ready after {START_TIMEOUT_S:g} s")

    def request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, dict[str, str], bytes]:
        """Send a request on a new connection; return status, headers and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=REQUEST_TIMEOUT_S)
        try:
            connection.request(method, path, body, self._headers)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def target(self, files: list[bytes], size: tuple[int, int]) -> Target:
        """Return the target for a load generator; `size` is the expected width and height of masks."""
        return Target(self.port, "/v1/segment", {}, files, size=size, timeout_s=REQUEST_TIMEOUT_S)

    def metric(self, name: str) -> float:
        """Return the value of a metric without labels; 0 if it is missing."""
        found = re.search(rf"^{name} (\S+)$", self.request("GET", "/metrics")[2].decode(), re.MULTILINE)
        return float(found[1]) if found else 0.0

    @property
    def memory_bytes(self) -> int:
        """Resident memory."""
        return resident_bytes(process_tree(self.process.pid))

    def terminate(self) -> None:
        """Send SIGTERM to all processes: the parent process does not forward it."""
        for pid in process_tree(self.process.pid):
            os.kill(pid, signal.SIGTERM)

    def stop(self) -> None:
        """Send SIGTERM, and SIGKILL if it does not end in time."""
        if self.process.poll() is None:
            self.terminate()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        finally:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
