"""A round: clients at work, faults at random moments, recovery, and the checks of the quiet service."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx
import numpy as np
from sqlalchemy import select

from service.runs.worker.orphan_sweep import UNCHANGED_HEARTBEATS
from service.storage.tables import ACTIVE, DeletedImage, Run, Worker
from tests.chaos.calls import TIMEOUT_S, Calls
from tests.chaos.checks import check_all, check_files, check_processes
from tests.chaos.clients import Clients
from tests.chaos.faults import Fault, Scene
from tests.chaos.installation import HEARTBEAT_S
from tests.chaos.ledger import Ledger
from tests.chaos.pictures import random_image
from tests.chaos.program_watch import ProgramWatch

WORK_S = 30.0
"""Faults begin within this time, and the clients work as long."""
RUN_DUE_S = 12.0
"""Time after which a run is requested, if none has started by itself."""
RECOVERY_TIMEOUT_S = 90.0
RUN_TIMEOUT_S = 600.0
"""Of a run after the last fault: on a busy machine, most of its time are imports of PyTorch."""
SWEEP_TIMEOUT_S = 30.0
# Leftovers of killed processes are deleted when they have not changed for a while.
LEFTOVERS_TIMEOUT_S = 2 * UNCHANGED_HEARTBEATS * HEARTBEAT_S
# Of requests that a fault has delayed.
SLACK_S = 3.0
# Longer than two heartbeats, the interval of the sweep.
QUIET_S = 2.5 * HEARTBEAT_S
POLL_S = 0.25


@dataclass(slots=True)
class Injection:
    """A fault in a round."""

    fault: Fault
    done: str = ""
    recovered_s: float | None = None


@dataclass(slots=True)
class Round:
    """What happened in a round."""

    injections: list[Injection]
    answered: int = 0
    excused: int = 0
    runs: Counter[str] = field(default_factory=Counter)
    """By how they ended: `judged`, `resumed and judged`, `failed`, `cancelled`."""
    violations: list[str] = field(default_factory=list)


@dataclass(kw_only=True, slots=True)
class Chaos:
    """The service, its clients, and what they know."""

    scene: Scene
    calls: Calls
    ledger: Ledger
    clients: Clients
    watch: ProgramWatch
    seen: dict[str, dict[object, object]] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)
    """Why runs failed."""

    def play(self, faults: list[Fault], rng: np.random.Generator) -> Round:
        """Play one round."""
        played = Round([Injection(fault) for fault in faults])
        answered, excused = self.calls.answered.total(), self.calls.excused.total()
        known = set(self.seen.get("run", {}))
        self.clients.resume()
        threads = [
            threading.Thread(target=self._inject, args=(injection, float(rng.uniform(1, WORK_S - 5))), daemon=True)
            for injection in played.injections
        ]
        for thread in threads:
            thread.start()
        time.sleep(RUN_DUE_S)
        self._request_run(known)
        time.sleep(WORK_S - RUN_DUE_S)
        for thread in threads:
            thread.join(RECOVERY_TIMEOUT_S + WORK_S)
        self.clients.pause()
        played.violations += [
            f"not recovered from `{each.fault.name}` after {RECOVERY_TIMEOUT_S:.0f} s"
            for each in played.injections
            if each.done and each.recovered_s is None
        ]
        played.violations += self._settle()
        played.violations += self._violations()
        self._count_runs(played, known)
        played.answered = self.calls.answered.total() - answered
        played.excused = self.calls.excused.total() - excused
        return played

    def _inject(self, injection: Injection, delay_s: float) -> None:
        time.sleep(delay_s)
        fault = injection.fault
        disturbance = self.calls.disturb(fault.name, fault.excuses)
        self.scene.installation.write_log(f"fault: {fault.name}")
        try:
            injection.done = fault.perform(self.scene)
        except Exception as error:
            self.clients.violations.append(f"the fault `{fault.name}` could not be performed: {error!r}")
        self.scene.installation.write_log(f"fault: {fault.name}: {injection.done or 'nothing to do it to'}")
        begin = time.monotonic()
        if injection.done and self._recover():
            injection.recovered_s = time.monotonic() - begin
        disturbance.end = time.monotonic() + SLACK_S

    def _recover(self) -> bool:
        """Wait until the API answers, an image is stored, and both workers live."""
        rng, deadline = np.random.default_rng(), time.monotonic() + RECOVERY_TIMEOUT_S
        beats = self._beats()
        with self.scene.installation.client(TIMEOUT_S) as http:
            while time.monotonic() < deadline:
                # In this order: each attempt of the last one may store an image.
                if len(self._beats().items() - beats.items()) >= 2 and self._is_up(http, rng):
                    return True
                time.sleep(POLL_S)
        return False

    def _is_up(self, http: httpx.Client, rng: np.random.Generator) -> bool:
        image_id, data = random_image(rng)
        try:
            segmented = http.post("/v1/segment", content=data)
        except httpx.TransportError:
            return False
        return segmented.status_code == 200 and self.clients.upload(http, image_id, data) == 201

    def _beats(self) -> dict[str, int]:
        """Read the counters of the living workers; empty while the database does not answer."""
        try:
            with self.scene.rows.read() as session:
                return {worker.id: worker.beats for worker in session.scalars(select(Worker))}
        except Exception:
            return {}

    def _request_run(self, known: set[object]) -> None:
        try:
            with self.scene.installation.client(20) as http:
                runs = http.get("/v1/runs").json()["runs"]
                if all(run["id"] in known for run in runs):
                    http.post("/v1/runs")
        except (httpx.HTTPError, KeyError, ValueError):
            # A fault; the round has no run of its own, then.
            return

    def _settle(self) -> list[str]:
        """Wait until no run is active and deletions are complete; return what did not happen in time."""
        late = []
        if not self._wait(self._is_idle, RUN_TIMEOUT_S):
            late.append(f"run {self._active()} has not ended after {RUN_TIMEOUT_S:.0f} s")
        if not self._wait(lambda: not self._pending(), SWEEP_TIMEOUT_S):
            late.append(f"{self._pending()} deletions are not complete after {SWEEP_TIMEOUT_S:.0f} s")
        if not self._wait(self._serves_active_model, SWEEP_TIMEOUT_S):
            late.append("the active model is not the one that answers")
        # What is still there then is a violation of the checks.
        self._wait(lambda: not list(check_files(self.scene.installation.data_dir)), LEFTOVERS_TIMEOUT_S)
        if not self._wait(lambda: not list(check_processes(self.scene.installation.processes())), SWEEP_TIMEOUT_S):
            late += check_processes(self.scene.installation.processes())
        return late

    def _is_idle(self) -> bool:
        """Whether no run is active, and the sweep has not just found that one is due."""
        if self._active():
            return False
        time.sleep(QUIET_S)
        return not self._active()

    def _active(self) -> list[str]:
        with self.scene.rows.read() as session:
            return list(session.scalars(select(Run.id).where(Run.status.in_(ACTIVE))))

    def _pending(self) -> int:
        with self.scene.rows.read() as session:
            return len(session.scalars(select(DeletedImage).where(DeletedImage.completed_at.is_(None))).all())

    def _wait(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_S)
        return True

    def _violations(self) -> list[str]:
        found = check_all(self.scene.rows, self.scene.installation.data_dir, self.ledger, self.seen)
        found += self.calls.judge()
        for source in (self.ledger.violations, self.clients.violations, self.watch.violations):
            found += source
            source.clear()
        return found

    def _serves_active_model(self) -> bool:
        try:
            with self.scene.installation.client(20) as http:
                models = http.get("/v1/models").raise_for_status().json()
                answer = http.post("/v1/segment", content=random_image(np.random.default_rng())[1])
        except httpx.HTTPError:
            return False
        return bool(models["serving"] == models["desired"] == answer.headers.get("X-Model-Version"))

    def _count_runs(self, played: Round, known: set[object]) -> None:
        with self.scene.rows.read() as session:
            for run in session.scalars(select(Run).order_by(Run.number)):
                if run.id in known:
                    continue
                resumed = "resumed and " if run.fence > 1 and run.status == "judged" else ""
                played.runs[f"{resumed}{run.status}"] += 1
                if run.error:
                    self.reasons.append(run.error)
