"""The service as people start it: a process of its own, asked over real sockets."""

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
from tests.benchmarks.serving.processes import resident_bytes, tree
from tests.benchmarks.serving.servers import free_port

START_LIMIT_S, STOP_LIMIT_S = 60.0, 60.0
PATIENCE_S = 60.0


class Service:
    """`python -m service serve`. Leave with `with`: it ends whatever happens."""

    def __init__(self, data_dir: Path, bundle: Path | None = None, **settings: str) -> None:
        """Start it and wait until it is ready.

        Args:
            data_dir: Its data folder.
            bundle: What it begins with; None: the starter model.
            settings: As in service/settings.py, by their names.
        """
        self.port = free_port()
        words = [sys.executable, "-m", "service", "serve", "--port", str(self.port), "--data-dir", str(data_dir)]
        words += ["--model", str(bundle)] if bundle else []
        own = {f"MASKLOOP_{name.upper()}": value for name, value in settings.items()}
        environment = os.environ | {"MASKLOOP_LOG_LEVEL": "WARNING"} | own
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
        end = time.monotonic() + START_LIMIT_S
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise RuntimeError(f"the service ended with exit code {self.process.returncode}")
            try:
                if self.ask("GET", "/readyz")[0] == 200:
                    return
            except OSError:
                time.sleep(0.02)
        raise RuntimeError(f"the service was not ready after {START_LIMIT_S:g} s")

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, dict[str, str], bytes]:
        """One request on a connection of its own: status, headers, body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            connection.request(method, path, body, self._headers)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def target(self, files: list[bytes], size: tuple[int, int]) -> Target:
        """Somebody to put a load on; `size` is that of every mask."""
        return Target(self.port, "/v1/segment", {}, files, size=size, patience_s=PATIENCE_S)

    def metric(self, name: str) -> float:
        """A sample of /metrics without labels; 0 where there is none."""
        found = re.search(rf"^{name} (\S+)$", self.ask("GET", "/metrics")[2].decode(), re.MULTILINE)
        return float(found[1]) if found else 0.0

    @property
    def memory_bytes(self) -> int:
        """Resident."""
        return resident_bytes(tree(self.process.pid))

    def terminate(self) -> None:
        """SIGTERM to the service itself, whose parent passes on nothing."""
        for pid in tree(self.process.pid):
            os.kill(pid, signal.SIGTERM)

    def stop(self) -> None:
        """End it, in good order or otherwise."""
        if self.process.poll() is None:
            self.terminate()
        try:
            self.process.wait(STOP_LIMIT_S)
        finally:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
