"""Supervisor of `up`: run API, worker and broker as child processes, restart those that crash, stop all together.

Worker and broker are restarted for ever: the API segments without them. `up` ends if the API cannot be kept running.

If this process is killed, the kernel kills the children (`parent_watch.py`).
"""

from __future__ import annotations

import fcntl
import http.client
import math
import os
import select
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

from service.addresses import http_url
from service.child_process import Child, ProcessSpec
from service.listening_socket import listen, send_socket

POLL_S = 0.1
# In addition to `drain_s`.
API_GRACE_S = 5.0
# In addition to `stop_grace_s`.
WORKER_GRACE_S = 10.0
READY_TIMEOUT_S = 120.0
# After the API is ready; the worker starts later and with low priority.
BROKER_TIMEOUT_S = 15.0

NO_TRAINING = "images are segmented, but no training run starts or continues"
NO_NEW_TRAINING = "images are segmented and a training run continues, but none starts"


class SupervisorError(Exception):
    """The group cannot start or continue."""


def up(options: dict[str, Any]) -> int:
    """Run API, worker and broker until SIGTERM, SIGINT or SIGHUP, and return the exit code.

    `options` are settings of the command line, by name. The others come from the environment.

    Raises ValidationError for an invalid setting, PublicWithoutKey, PortTaken, SupervisorError if another `up` uses the
    data folder, or OSError without a broker for this platform.
    """
    return _Group(options).run()


class _Group:
    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._signals = 0
        self._children: list[Child] = []
        self._own_end, self._api_end = socket.socketpair()
        # The worker writes to it when it has reached the broker.
        self._worker_ready, self._worker_end = os.pipe()
        self._sock: socket.socket | None = None
        self._broker_url = ""

    def run(self) -> int:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        try:
            # The API starts first: its imports take two seconds, during which everything else happens.
            self._start(_api_spec(self._options, self._api_end.fileno()), self._send_socket)
            return self._run_all()
        finally:
            self._stop_all()

    def _run_all(self) -> int:
        from service import broker  # noqa: PLC0415 - imported after the API has started
        from service.keys.first_start import check_exposure  # noqa: PLC0415
        from service.settings import Settings  # noqa: PLC0415
        from service.storage.data_folder import write_probe  # noqa: PLC0415

        settings = Settings(**self._options)
        with ExitStack() as stack:
            stack.enter_context(_lock_data_dir(settings.data_dir))
            # The broker would only end with a message in its log, on the full disk.
            write_probe(settings.data_dir)
            check_exposure(settings)
            path = None if settings.broker_url else stack.enter_context(broker.socket_path(settings.data_dir))
            # Undone in reverse order: close the port, stop the children, release the data folder.
            stack.callback(self._stop_all)
            self._sock = stack.enter_context(listen(settings.host, settings.port))
            self._broker_url = broker.broker_url(path) if path else settings.broker_url
            self._send_socket()
            api = self._children[0]
            api.spec = replace(api.spec, grace_s=settings.drain_s + API_GRACE_S)
            url = http_url(*self._sock.getsockname()[:2])
            threading.Thread(target=self._announce_ready, args=(url,), daemon=True).start()
            self._start(_worker_spec(self._options, self._broker_url, settings.stop_grace_s, self._worker_end))
            if path is not None:
                self._start(replace(broker.broker_spec(settings.data_dir, path), consequence=NO_NEW_TRAINING))
            return self._supervise()

    def _start(self, spec: ProcessSpec, on_start: Callable[[], None] = lambda: None) -> None:
        child = Child(spec, on_start)
        self._children.append(child)
        child.start()

    def _send_socket(self) -> None:
        if self._sock is not None:
            send_socket(self._own_end, self._sock, self._broker_url)

    def _supervise(self) -> int:
        while not self._signals:
            for child in self._children:
                message = child.poll()
                if message is None:
                    continue
                print_line(message)
                if child.failed_for_good:
                    return 1
            time.sleep(POLL_S)
        print_line("stopping; running requests are finished first (press Ctrl-C again to stop at once)")
        return 0

    def _stop_all(self) -> None:
        for child in self._children:
            child.stop(force=lambda: self._signals > 1)
        self._own_end.close()
        self._api_end.close()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._signals += 1

    def _announce_ready(self, url: str) -> None:
        if self._wait(lambda: _is_ready(url), READY_TIMEOUT_S):
            print_line(f"ready: open {url} in a browser, or POST an image to {url}/v1/segment. Ctrl-C stops it.")
        elif not self._signals:
            print_line(f"not ready after {READY_TIMEOUT_S:.0f} s: {url}/readyz gives the reason")
        if self._wait(self._broker_reached, BROKER_TIMEOUT_S) or self._signals:
            return
        print_line(
            "the worker cannot reach the broker: images are segmented, but no training run starts. Its lines above "
            "give the reason; check MASKLOOP_BROKER_URL if it is set."
        )
        if self._wait(self._broker_reached, math.inf):
            print_line("the worker has reached the broker: training runs can start")

    def _wait(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Whether the condition becomes true in time, and before a signal arrives."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and not self._signals:
            if condition():
                return True
            time.sleep(POLL_S)
        return False

    def _broker_reached(self) -> bool:
        return bool(select.select([self._worker_ready], [], [], 0)[0])


def print_line(text: str) -> None:
    """Print in the format of the children's output."""
    sys.stderr.write(f"up     | {text}\n")
    sys.stderr.flush()


def _api_spec(options: dict[str, Any], descriptor: int) -> ProcessSpec:
    # --host decides on the scopes of anonymous callers.
    arguments = _arguments(options, ("host", "data_dir", "model"))
    command = [sys.executable, "-m", "service", "serve", "--handover", str(descriptor), *arguments]
    return ProcessSpec(name="api", command=command, descriptors=(descriptor,), grace_s=API_GRACE_S, essential=True)


def _worker_spec(options: dict[str, Any], broker_url: str, stop_grace_s: float, ready_fd: int) -> ProcessSpec:
    arguments = _arguments(options, ("data_dir", "model"))
    return ProcessSpec(
        name="worker",
        command=[sys.executable, "-m", "service", "worker", "--ready-fd", str(ready_fd), *arguments],
        descriptors=(ready_fd,),
        # The worker and its programs do not need the key.
        environment={"MASKLOOP_BROKER_URL": broker_url, "MASKLOOP_API_KEY": ""},
        grace_s=stop_grace_s + WORKER_GRACE_S,
        consequence=NO_TRAINING,
    )


def _arguments(options: dict[str, Any], names: tuple[str, ...]) -> list[str]:
    given = [name for name in names if name in options]
    return [part for name in given for part in (f"--{name.replace('_', '-')}", str(options[name]))]


def _is_ready(url: str) -> bool:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()


@contextmanager
def _lock_data_dir(data_dir: Path) -> Iterator[None]:
    """Lock the data folder: two brokers must not share its files."""
    data_dir.mkdir(parents=True, exist_ok=True)
    with (data_dir / "up.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SupervisorError(
                f"another `up` uses {data_dir}: stop it first, or choose another folder with --data-dir"
            ) from None
        yield
