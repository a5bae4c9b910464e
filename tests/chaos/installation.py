"""The service as it is deployed on one machine: `up`, a second worker, and what restarts them when they have died."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import httpx

from service.broker import SOCKET, broker_url
from service.keys.api_key import read_local_key
from service.parent_watch import killed_with_parent
from tests.chaos.clock import Clock
from tests.chaos.process_list import Process, Role, find_processes
from tests.contract.conftest import free_port

START_TIMEOUT_S, STOP_TIMEOUT_S = 120.0, 60.0
RESTART_S = 1.0
"""Pause before a restart, as that of a process manager."""
HEARTBEAT_S = 1.0
RETRAIN_AFTER_IMAGES = 16


class Installation:
    """`python -m service up`, and `python -m service worker` beside it. One thread keeps both running."""

    def __init__(self, data_dir: Path, log: Path, clock: Clock, **settings: str) -> None:
        self.data_dir = data_dir
        self.clock = clock
        self.restarts = 0
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        variables = {f"MASKLOOP_{name.upper()}": value for name, value in settings.items()}
        # Threads slow down operations on tensors of a few pixels.
        self._environment = os.environ | clock.environment | variables | {"OMP_NUM_THREADS": "1"}
        self._log: IO[bytes] = log.open("ab")
        self._key: str | None = None
        self._stopping = threading.Event()
        self._starting = threading.Lock()
        self._up: subprocess.Popen[bytes] | None = None
        self._worker: subprocess.Popen[bytes] | None = None
        self._keeper = threading.Thread(target=self._keep, name="process manager", daemon=True)

    def start(self) -> None:
        """Start everything, and wait until requests are answered."""
        self._keeper.start()
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.is_ready():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the service was not ready after {START_TIMEOUT_S:g} s: see its log")
            time.sleep(0.2)
        self._key = read_local_key(self.data_dir)

    @contextmanager
    def not_restarted(self) -> Iterator[None]:
        """Restart nothing during the block, as if the machine were off."""
        with self._starting:
            yield

    def is_ready(self) -> bool:
        """Whether the API answers that it is ready."""
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def client(self, timeout_s: float) -> httpx.Client:
        """Return an HTTP client with the key of the first start, and a new connection for each request."""
        headers = {"Authorization": f"Bearer {self._key}"}
        limits = httpx.Limits(max_keepalive_connections=0)
        return httpx.Client(base_url=self.url, headers=headers, timeout=timeout_s, limits=limits)

    def processes(self) -> list[Process]:
        """List the processes of the service and its programs."""
        return find_processes(self.data_dir)

    def pids(self, *roles: Role) -> list[int]:
        """List the processes with these roles."""
        return [process.pid for process in self.processes() if process.role in roles]

    def stop(self) -> None:
        """Stop everything with SIGTERM, and wait for its end."""
        self._stopping.set()
        self._keeper.join()
        self._log.close()

    def write_log(self, line: str) -> None:
        """Write a line to the log of the service."""
        self._log.write(f"chaos  | {line}\n".encode())
        self._log.flush()

    def _keep(self) -> None:
        # The thread outlives the processes: the kernel kills them when it ends.
        up = ["up", "--port", str(self.port), "--data-dir", str(self.data_dir)]
        worker = ["worker", "--data-dir", str(self.data_dir)]
        url = broker_url(self.data_dir.absolute() / "valkey" / SOCKET)
        while not self._stopping.wait(0.1):
            with self._starting:
                self._up = self._kept(self._up, up, {})
                self._worker = self._kept(self._worker, worker, {"MASKLOOP_BROKER_URL": url})
        started = [process for process in (self._worker, self._up) if process is not None]
        for process in started:
            process.terminate()
        for process in started:
            process.wait(STOP_TIMEOUT_S)

    def _kept(
        self, process: subprocess.Popen[bytes] | None, words: list[str], variables: dict[str, str]
    ) -> subprocess.Popen[bytes]:
        if process is not None and process.poll() is None:
            return process
        if process is not None:
            self.restarts += 1
            self._stopping.wait(RESTART_S)
        command = killed_with_parent([sys.executable, "-m", "service", *words])
        return subprocess.Popen(
            command,
            env=self._environment | variables,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
