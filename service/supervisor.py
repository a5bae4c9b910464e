"""`up`: API, worker and broker as one group. Any that dies is started again; all of them end together.

Each child is tied to this process (`tether.py`), so that nothing is left behind even if this process is killed.
"""

from __future__ import annotations

import fcntl
import http.client
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from service.child_process import Child, Spec
from service.listening_socket import hand_over, listen

LOOK_EVERY_S = 0.1
# Beyond the time that requests have to end.
API_GRACE_S = 5.0
# Beyond the time that the trainer has to save its state.
WORKER_GRACE_S = 10.0
READY_TIMEOUT_S = 120.0


class SupervisorError(Exception):
    """The group cannot start, or cannot go on; the message says what to do."""


def up(given: dict[str, Any]) -> int:
    """Run everything until SIGTERM, SIGINT or SIGHUP, and return the exit code.

    Args:
        given: Settings by name, as the command line gives them; the environment has the others.

    Raises:
        ValidationError: A setting makes no sense.
        OpenToAll: Others would reach it, and there is no key.
        PortTaken: Somebody else listens on the port.
        SupervisorError: Another `up` uses the data folder.
        OSError: There is no broker for this machine.
    """
    return _Group(given).run()


class _Group:
    def __init__(self, given: dict[str, Any]) -> None:
        self._given = given
        self._signals = 0
        # In the order of their end: nobody asks any more, nobody works any more, nothing is left to be kept.
        self._children: list[Child] = []
        self._ours, self._theirs = socket.socketpair()
        # Known when the settings are.
        self._sock: socket.socket | None = None
        self._broker_url = ""

    def run(self) -> int:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        try:
            # First of all: its libraries take two seconds to import, in which everything here gets done.
            self._start(_api(self._given, self._theirs.fileno()), self._hand_over)
            return self._go()
        finally:
            self._end()

    def _go(self) -> int:
        from service import broker  # noqa: PLC0415 - see above
        from service.keys.exposure import check_exposure  # noqa: PLC0415
        from service.settings import Settings  # noqa: PLC0415

        settings = Settings(**self._given)
        with ExitStack() as stack:
            stack.enter_context(_only_one(settings.data_dir))
            check_exposure(settings)
            path = None if settings.broker_url else stack.enter_context(broker.socket_path(settings.data_dir))
            # Undone from below: the port is closed, then the children end, then the folder is free for others.
            stack.callback(self._end)
            self._sock = stack.enter_context(listen(settings.host, settings.port))
            self._broker_url = broker.broker_url(path) if path else settings.broker_url
            self._hand_over()
            api = self._children[0]
            api.spec = replace(api.spec, grace_s=settings.drain_s + API_GRACE_S)
            address = self._sock.getsockname()
            threading.Thread(target=self._announce, args=address[:2], daemon=True).start()
            self._start(_worker(self._given, self._broker_url, settings.stop_grace_s))
            if path is not None:
                self._start(broker.broker_spec(settings.data_dir, path))
            return self._watch()

    def _start(self, spec: Spec, on_start: Callable[[], None] = lambda: None) -> None:
        child = Child(spec, on_start)
        self._children.append(child)
        child.start()

    def _hand_over(self) -> None:
        if self._sock is not None:
            hand_over(self._ours, self._sock, self._broker_url)

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
        for child in self._children:
            child.stop(hurry=lambda: self._signals > 1)
        self._ours.close()
        self._theirs.close()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._signals += 1

    def _announce(self, host: str, port: int) -> None:
        """Say once where to go, as soon as there is an answer."""
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


def _api(given: dict[str, Any], handover: int) -> Spec:
    insecure = ["--insecure"] if "anonymous_scopes" in given else []
    command = [sys.executable, "-m", "service", "serve", "--handover", str(handover), *insecure, *_options(given)]
    return Spec(name="api", command=command, descriptors=(handover,), grace_s=API_GRACE_S)


def _worker(given: dict[str, Any], broker_url: str, stop_grace_s: float) -> Spec:
    return Spec(
        name="worker",
        command=[sys.executable, "-m", "service", "worker", *_options(given)],
        # It answers nobody, and the programs that it starts need no secret.
        environment={"MASKLOOP_BROKER_URL": broker_url, "MASKLOOP_API_KEY": ""},
        grace_s=stop_grace_s + WORKER_GRACE_S,
    )


def _options(given: dict[str, Any]) -> list[str]:
    names = {"data_dir": "--data-dir", "model": "--model"}
    return [part for name, option in names.items() if name in given for part in (option, str(given[name]))]


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
