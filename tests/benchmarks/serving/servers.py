"""A side's server as a process: started, held still while others are measured, ended with all its children."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import time
from typing import IO, Self

from service.parent_watch import killed_with_parent
from tests.benchmarks.serving.http1 import Response
from tests.benchmarks.serving.processes import cpu_seconds, resident_bytes, tree
from tests.benchmarks.serving.sides import ROOT, Place, Side, SideFailed

START_LIMIT_S, STOP_LIMIT_S = 90.0, 8.0
LOOK_EVERY_S = 0.01


def tethered_process(
    command: list[str],
    environment: dict[str, str],
    *,
    stdin: int = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.PIPE,
    stderr: int | IO[bytes] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program that dies with this one, in a session of its own: Ctrl-C is for this one, which ends it."""
    return subprocess.Popen(
        killed_with_parent(command),
        cwd=ROOT,
        env=environment,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
    )


class Server:
    """One side, running. Leave with `with`: whatever happens, its processes end."""

    def __init__(self, side: Side, place: Place) -> None:
        """Start it and wait until it says that it is ready. Raises SideFailed."""
        self.side, self.place = side, place
        command, environment = side.command(place), side.environment(place)
        self._log = place.folder / "log"
        with self._log.open("wb") as sink:
            began = time.perf_counter()
            self._process = tethered_process(command, environment, stdout=sink, stderr=subprocess.STDOUT)
        try:
            self._wait_until_ready(began)
        except BaseException:
            self.stop()
            raise
        self.ready_s = time.perf_counter() - began
        """From the start of the process to its first "ready"."""

    def _wait_until_ready(self, began: float) -> None:
        while time.perf_counter() - began < START_LIMIT_S:
            if self._process.poll() is not None:
                raise SideFailed(f"it ended with exit code {self._process.returncode}: {self._last_words()}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.ask("GET", self.side.ready).status == 200:
                    return
            time.sleep(LOOK_EVERY_S)
        raise SideFailed(f"it was not ready after {START_LIMIT_S:g} s: {self._last_words()}")

    def _last_words(self) -> str:
        return self._log.read_text(errors="replace")[-500:].strip()

    def segment(self, file: bytes) -> Response:
        """Ask for one mask."""
        return self.ask("POST", self.side.path, file, self.side.headers)

    def ask(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Response:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.place.port, timeout=30)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Response(answer.status, found, answer.read())
        finally:
            connection.close()

    @property
    def memory_bytes(self) -> int:
        """Resident memory of all its processes."""
        return resident_bytes(tree(self._process.pid))

    @property
    def cpu_s(self) -> float:
        """CPU that all its processes have taken."""
        return cpu_seconds(tree(self._process.pid))

    @property
    def processes(self) -> int:
        """How many it has."""
        return len(tree(self._process.pid))

    def pause(self) -> None:
        """Hold it still, so that it takes no CPU from the others."""
        _send(tree(self._process.pid), signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        _send(tree(self._process.pid), signal.SIGCONT)

    def stop(self) -> None:
        """End it: its first process may end the others; what is left after that is killed."""
        family = tree(self._process.pid)
        _send(family, signal.SIGCONT)
        _send([self._process.pid] if self._process.poll() is None else [], signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=STOP_LIMIT_S)
        _send(sorted({*family, *tree(self._process.pid)}), signal.SIGKILL)
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _send(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
