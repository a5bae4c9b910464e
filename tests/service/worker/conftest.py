"""A real broker and real worker processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.broker import broker_spec, broker_url
from service.child_process import Child
from service.settings import Settings
from service.state import State, open_state
from tests.service.conftest import eventually
from tests.service.runs.conftest import actor, bad, clock, good, loop, loop_settings

__all__ = ["actor", "bad", "clock", "good", "loop", "loop_settings"]


@pytest.fixture
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    """A Valkey server of the installed wheel, on a Unix socket."""
    folder = tmp_path_factory.mktemp("v")
    child = Child(broker_spec(folder, folder / "valkey.sock"))
    child.start()
    eventually((folder / "valkey.sock").exists)
    yield child
    child.stop(force=lambda: True)


@pytest.fixture
def worker_settings(broker: Child, loop_settings: Callable[..., Settings]) -> Settings:
    command = broker.spec.command
    return loop_settings(broker_url=broker_url(Path(command[command.index("--unixsocket") + 1])))


@pytest.fixture
def api_state(worker_settings: Settings) -> Iterator[State]:
    """The state of the API process: the stores, with the bad model active, and the queue."""
    opened = open_state(worker_settings)
    opened.models.ensure_start_model()
    yield opened
    opened.close()


class WorkerProcess:
    """`python -m service worker`."""

    def __init__(self, settings: Settings) -> None:
        # Dumped as asterisks; a worker needs no key.
        given = settings.model_dump(mode="json", exclude_defaults=True, exclude={"api_key"})
        environment = {f"MASKLOOP_{name.upper()}": str(value) for name, value in given.items()}
        self.process = subprocess.Popen([sys.executable, "-m", "service", "worker"], env=os.environ | environment)

    def end(self, number: signal.Signals) -> int:
        """Send a signal, wait for the process to end, and return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)


@pytest.fixture
def start_worker(worker_settings: Settings) -> Iterator[Callable[[], WorkerProcess]]:
    """Return a function that starts a worker; workers are killed at the end of the test."""
    workers: list[WorkerProcess] = []

    def start() -> WorkerProcess:
        workers.append(WorkerProcess(worker_settings))
        return workers[-1]

    yield start
    for worker in workers:
        worker.process.kill()
        worker.process.wait()
