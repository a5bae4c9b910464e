"""The faults: what each does to the service, for how long, and which failed requests it excuses."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from service.runs.leases.liveness import MISSED_HEARTBEATS
from service.storage.database import Database
from tests.chaos.calls import API_DOWN, Excuse
from tests.chaos.clock import Clock
from tests.chaos.database_server import DatabaseServer
from tests.chaos.installation import HEARTBEAT_S, Installation
from tests.chaos.process_list import Role, send
from tests.crash_disk import CrashDisk
from tests.small_disk import Disk

WAIT_FOR_PROGRAM_S = 40.0
"""For a trainer or exporter to start."""
LEASE_S = MISSED_HEARTBEATS * HEARTBEAT_S
HOUR_S = 3600
REFUSED: frozenset[Excuse] = frozenset({"503"})
NOTHING: frozenset[Excuse] = frozenset()


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """What the faults act on."""

    installation: Installation
    clock: Clock
    server: DatabaseServer
    rows: Database
    """Access of the checks to the database."""
    disk: Disk | None
    rng: np.random.Generator


Perform = Callable[[Scene], str]
"""Performs a fault until it is over; returns what was done, or "" if there was nothing to do it to."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind of fault."""

    name: str
    perform: Perform
    excuses: frozenset[Excuse] = NOTHING
    needs: str = ""
    """`clock`, `disk` or `crash disk`, without which it cannot be performed."""


def all_faults(database: DatabaseServer) -> list[Fault]:
    """List the kinds of faults for a database."""
    return [
        Fault("API killed", _kill("api"), API_DOWN),
        Fault("worker of `up` killed", _kill("worker 1")),
        Fault("second worker killed", _kill("worker 2")),
        Fault("both workers, with their sweepers, killed", _kill("worker 1", "worker 2")),
        Fault("trainer killed", _kill("trainer")),
        Fault("exporter killed", _kill("exporter")),
        Fault("broker killed", _kill("broker")),
        Fault("supervisor killed", _kill("supervisor"), API_DOWN),
        Fault("all killed at once", _kill_all, API_DOWN),
        Fault("power cut: writes that were not flushed are lost", _cut_power, API_DOWN, needs="crash disk"),
        Fault("stopped and started (SIGTERM)", _terminate, API_DOWN),
        # It may hold SQLite's lock meanwhile.
        Fault("worker hangs longer than its lease", _hang_worker, REFUSED),
        Fault("all processes sleep longer than the lease", _sleep, API_DOWN),
        Fault("clock set forward", _step_clock(+1), needs="clock"),
        Fault("clock set back", _step_clock(-1), needs="clock"),
        Fault("disk full", _fill_disk, frozenset({"507"}), needs="disk"),
        Fault(database.fault, _crash_database, REFUSED if database.url else NOTHING),
    ]


def _kill(*roles: Role) -> Perform:
    def perform(scene: Scene) -> str:
        pids = _wait_for(scene, *roles)
        send(pids, signal.SIGKILL)
        return f"SIGKILL of {pids}" if pids else ""

    return perform


def _kill_all(scene: Scene) -> str:
    pids = [process.pid for process in scene.installation.processes()]
    # Stopped first: none may see the death of another.
    send(pids, signal.SIGSTOP)
    send(pids, signal.SIGKILL)
    return f"SIGKILL of {pids}"


def _cut_power(scene: Scene) -> str:
    assert isinstance(scene.disk, CrashDisk)
    with scene.installation.not_restarted():
        pids = [process.pid for process in scene.installation.processes()]
        send(pids, signal.SIGSTOP)
        scene.disk.shut_down()
        send(pids, signal.SIGKILL)
        scene.rows.close()
        scene.disk.mount_again()
    return f"SIGKILL of {pids}, and the disk as it was flushed"


def _terminate(scene: Scene) -> str:
    pids = scene.installation.pids("supervisor", "worker 2")
    send(pids, signal.SIGTERM)
    return f"SIGTERM of {pids}"


def _hang_worker(scene: Scene) -> str:
    """Stop the worker that has started a program, or any."""
    _wait_for(scene, "trainer", "exporter")
    parents = {process.parent for process in scene.installation.processes() if process.out is not None}
    workers = scene.installation.pids("worker 1", "worker 2")
    chosen = [pid for pid in workers if pid in parents] or workers[:1]
    return _stop_for(scene, chosen)


def _sleep(scene: Scene) -> str:
    return _stop_for(scene, [process.pid for process in scene.installation.processes()])


def _stop_for(scene: Scene, pids: list[int]) -> str:
    seconds = LEASE_S + float(scene.rng.uniform(1, 5))
    send(pids, signal.SIGSTOP)
    time.sleep(seconds)
    send(pids, signal.SIGCONT)
    return f"SIGSTOP of {pids} for {seconds:.1f} s" if pids else ""


def _step_clock(sign: int) -> Perform:
    def perform(scene: Scene) -> str:
        offset_s = sign * int(scene.rng.integers(60, 48 * HOUR_S))
        scene.clock.set(offset_s)
        return f"now {offset_s:+d} s from the true time"

    return perform


def _fill_disk(scene: Scene) -> str:
    assert scene.disk is not None
    end = time.monotonic() + float(scene.rng.uniform(4, 10))
    while time.monotonic() < end:
        # Again and again: the service deletes files.
        scene.disk.fill()
        time.sleep(0.2)
    scene.disk.free()
    return "no byte left"


def _crash_database(scene: Scene) -> str:
    return scene.server.crash(scene.installation.data_dir, float(scene.rng.uniform(1, 4)))


def _wait_for(scene: Scene, *roles: Role) -> list[int]:
    """Wait until a process of the roles exists, and a moment more."""
    deadline = time.monotonic() + WAIT_FOR_PROGRAM_S
    while not scene.installation.pids(*roles) and time.monotonic() < deadline:
        time.sleep(0.05)
    if set(roles) <= {"trainer", "exporter"}:
        # Their start, most of which are imports, is as good a moment as their work.
        time.sleep(float(scene.rng.uniform(0, 12)))
    return scene.installation.pids(*roles)
