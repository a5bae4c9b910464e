"""Start, pause, measure and stop a server with all its child processes."""

import contextlib
import http.client
import os
import signal
import subprocess
import time
from typing import IO, Self

from service.parent_watch import killed_with_parent
from tests.benchmarks.serving.connections import Response
from tests.benchmarks.serving.processes import cpu_seconds, process_tree, resident_bytes
from tests.benchmarks.serving.servers import ROOT, Launch, ServerError, ServerSpec

START_TIMEOUT_S, STOP_TIMEOUT_S = 90.0, 8.0
POLL_S = 0.01


def start_process(
    command: list[str],
    environment: dict[str, str],
    *,
    stdin: int = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.PIPE,
    stderr: int | IO[bytes] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program that ends with this one, in a new session, so that Ctrl-C reaches only this one."""
    return subprocess.Popen(
        killed_with_parent(command),
        cwd=ROOT,
        env=environment,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
    )


class ServerProcess:
    """A running server, a context manager that ends all its processes."""

    def __init__(self, spec: ServerSpec, launch: Launch) -> None:
        """Start it and wait until it is ready. Raises ServerError."""
        self.spec, self.launch = spec, launch
        command, environment = spec.command(launch), spec.environment(launch)
        self._log = launch.folder / "log"
        with self._log.open("wb") as sink:
            start = time.perf_counter()
            self._process = start_process(command, environment, stdout=sink, stderr=subprocess.STDOUT)
        try:
            self._wait_until_ready(start)
        except BaseException:
            self.stop()
            raise
        self.ready_s = time.perf_counter() - start
        """Seconds from the start of the process until it was ready."""

    def _wait_until_ready(self, start: float) -> None:
        while time.perf_counter() - start < START_TIMEOUT_S:
            if self._process.poll() is not None:
                raise ServerError(f"it ended with exit code {self._process.returncode}: {self._log_tail()}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.request("GET", self.spec.ready_path).status == 200:
                    return
            time.sleep(POLL_S)
        raise ServerError(f"it was not ready after {START_TIMEOUT_S:g} s: {self._log_tail()}")

    def _log_tail(self) -> str:
        return self._log.read_text(errors="replace")[-500:].strip()

    def segment(self, file: bytes) -> Response:
        """Send one image."""
        return self.request("POST", self.spec.path, file, self.spec.headers)

    def request(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Response:
        """Send one request on a new connection."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.launch.port, timeout=30)) as connection:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Response(answer.status, found, answer.read())

    @property
    def memory_bytes(self) -> int:
        """Resident memory of all its processes."""
        return resident_bytes(process_tree(self._process.pid))

    @property
    def cpu_s(self) -> float:
        """CPU seconds that all its processes have used."""
        return cpu_seconds(process_tree(self._process.pid))

    @property
    def processes(self) -> int:
        """Number of its processes."""
        return len(process_tree(self._process.pid))

    def pause(self) -> None:
        """Stop its processes with SIGSTOP, so that it takes no CPU time from the others."""
        _send(process_tree(self._process.pid), signal.SIGSTOP)

    def resume(self) -> None:
        """Continue after `pause`."""
        _send(process_tree(self._process.pid), signal.SIGCONT)

    def stop(self) -> None:
        """Send SIGTERM to the first process; kill all processes that remain."""
        tree = process_tree(self._process.pid)
        _send(tree, signal.SIGCONT)
        _send([self._process.pid] if self._process.poll() is None else [], signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=STOP_TIMEOUT_S)
        _send(sorted({*tree, *process_tree(self._process.pid)}), signal.SIGKILL)
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _send(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
