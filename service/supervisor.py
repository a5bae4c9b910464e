"""`up`: API, worker and broker as one group. Any that dies is started again; all of them end together.

Each child is tied to this process (`tether.py`), so that nothing is left behind even if this process is killed.
"""

from __future__ import annotations

import fcntl
import http.client
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from service import broker
from service.child import Child, Spec
from service.listen import listen
from service.settings import Settings

LOOK_EVERY_S = 0.1
# uvicorn drains for 10 s before it cuts what is left; see `serve.py`.
API_GRACE_S = 15.0
# Beyond the time that the trainer has to save its state.
WORKER_GRACE_S = 10.0
READY_TIMEOUT_S = 120.0


class SupervisorError(Exception):
    """The group cannot start, or cannot go on; the message says what to do."""


def up(settings: Settings) -> int:
    """Run everything until SIGTERM, SIGINT or SIGHUP, and return the exit code.

    Raises:
        PortTaken: Somebody else listens on the port.
        SupervisorError: Another `up` uses the data folder.
        OSError: There is no broker for this machine.
    """
    with _only_one(settings.data_dir), listen(settings.host, settings.port) as sock:
        return _Group(settings, sock).run()


class _Group:
    def __init__(self, settings: Settings, sock: socket.socket) -> None:
        self._settings = settings
        self._sock = sock
        self._signals = 0
        # In the order of their end: nobody asks any more, nobody works any more, nothing is left to be kept.
        self._children: list[Child] = []
        self._broker_socket: Path | None = None

    def run(self) -> int:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        try:
            # The API first and for itself: it is ready long before the others, and needs neither to answer.
            self._start(_api(self._settings, self._sock, self._broker_url()))
            threading.Thread(target=self._announce, daemon=True).start()
            self._start(_worker(self._settings, self._broker_url()))
            if self._broker_socket is not None:
                self._start(broker.broker_spec(self._settings.data_dir, self._broker_socket))
            return self._watch()
        finally:
            self._end()

    def _start(self, spec: Spec) -> None:
        child = Child(spec)
        self._children.append(child)
        child.start()

    def _watch(self) -> int:
        while not self._signals:
            for child in self._children:
                news = child.look()
                if news is None:
                    continue
                if child.hopeless:
                    tell(f"{news}: giving up. The reason is in {child.spec.log_file or 'its lines above'}")
                    return 1
                tell(f"{news}: starting it again")
            time.sleep(LOOK_EVERY_S)
        tell("ending, requests under way are answered first (again to end at once)")
        return 0

    def _end(self) -> None:
        self._sock.close()
        for child in self._children:
            child.stop(hurry=lambda: self._signals > 1)
        if self._broker_socket is not None and self._broker_socket.parent.name.startswith("maskloop-"):
            shutil.rmtree(self._broker_socket.parent, ignore_errors=True)

    def _broker_url(self) -> str:
        if self._settings.broker_url:
            return self._settings.broker_url
        if self._broker_socket is None:
            self._broker_socket = broker.socket_path(self._settings.data_dir)
        return broker.broker_url(self._broker_socket)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._signals += 1

    def _announce(self) -> None:
        """Say once where to go, as soon as there is an answer."""
        host, port = self._sock.getsockname()[:2]
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
        address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline and not self._signals:
            if _ready(host, port):
                tell(f"ready: open {address} in a browser, or POST an image to {address}/v1/segment. Ctrl-C ends it.")
                return
            time.sleep(LOOK_EVERY_S)
        if not self._signals:
            tell(f"not ready after {READY_TIMEOUT_S:.0f} s: see {address}/readyz for the reason")


def tell(text: str) -> None:
    """A line of the supervisor's own, for the person at the terminal."""
    sys.stderr.write(f"up     | {text}\n")
    sys.stderr.flush()


def _api(settings: Settings, sock: socket.socket, broker_url: str) -> Spec:
    return Spec(
        name="api",
        command=[sys.executable, "-m", "service", "serve", "--descriptor", str(sock.fileno()), *_options(settings)],
        environment={"MASKLOOP_BROKER_URL": broker_url},
        descriptors=(sock.fileno(),),
        grace_s=API_GRACE_S,
    )


def _worker(settings: Settings, broker_url: str) -> Spec:
    return Spec(
        name="worker",
        command=[sys.executable, "-m", "service", "worker", *_options(settings)],
        environment={"MASKLOOP_BROKER_URL": broker_url},
        grace_s=settings.stop_grace_s + WORKER_GRACE_S,
    )


def _options(settings: Settings) -> list[str]:
    options = ["--data-dir", str(settings.data_dir)]
    return [*options, "--model", settings.model] if settings.model else options


def _ready(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()


@contextmanager
def _only_one(data_dir: Path) -> Iterator[None]:
    """Two groups in one data folder would fight for the broker's files."""
    data_dir.mkdir(parents=True, exist_ok=True)
    with (data_dir / "up.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SupervisorError(
                f"another `up` uses {data_dir}: end it first, or choose another folder with --data-dir"
            ) from None
        yield
