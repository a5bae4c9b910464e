"""A run from its claim to its end, with a trainer that is quick."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import select

from service.runs.lease import claim
from service.runs.perform import perform
from service.runs.phases import Phases
from service.runs.reaper import reap
from service.settings import Settings, open_telemetry_variables
from service.state import State
from service.storage.tables import Activation, Run
from service.tracing import open_tracing
from tests.service.conftest import eventually
from tests.service.otlp_receiver import receiving
from tests.service.runs.actor import Actor, alive
from tests.service.runs.conftest import BAD, GOOD, employ, fill


@pytest.fixture
def run(loop: State) -> Run:
    fill(loop)
    employ(loop)
    return loop.retrain_policy.start("manual")


def go(loop: State, run_id: str, *, stopping: threading.Event | None = None, settings: Settings | None = None) -> Run:
    perform(
        run_id,
        stopping or threading.Event(),
        settings=settings or loop.settings,
        database=loop.database,
        images=loop.images,
        models=loop.models,
    )
    return loop.runs.get(run_id)


def activations(loop: State) -> list[str]:
    with loop.database.read() as session:
        return list(session.scalars(select(Activation.version).order_by(Activation.id)))


class Background:
    """A run performed in a thread, to be disturbed meanwhile."""

    def __init__(self, loop: State, run_id: str) -> None:
        self.stopping = threading.Event()
        self._thread = threading.Thread(target=go, args=(loop, run_id), kwargs={"stopping": self.stopping})
        self._thread.start()

    def join(self) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive()


def test_a_better_candidate_is_promoted(loop: State, run: Run, actor: Actor) -> None:
    done = go(loop, run.id)
    assert (done.status, done.phase, done.error) == ("succeeded", "promote", None)
    assert (done.base_version, done.candidate_version) == (BAD, GOOD)
    assert done.miou_after == 1.0
    assert done.miou_before is not None
    assert done.miou_before < 0.5
    assert done.report is not None
    assert done.report["accepted"]
    assert done.finished_at is not None
    desired = loop.models.activated()
    assert desired is not None
    assert (desired.version, desired.state, desired.miou, desired.run_id) == (GOOD, "ready", 1.0, run.id)
    phases = [e.event["phase"] for e in loop.runs.events(run.id) if e.event["event"] == "phase"]
    assert phases == ["prepare", "train", "export", "judge", "promote"]
    assert actor.history == ["train from 0", "export"]
    left = {entry.name for entry in (loop.settings.data_dir / "runs" / run.id).iterdir()}
    assert left == {"recipe.toml", "train", "log.txt"}
    # A message may come twice.
    assert go(loop, run.id).attempts == 1
    assert len(actor.history) == 2


def test_a_worse_candidate_is_rejected_and_kept_to_be_looked_at(
    loop: State, run: Run, actor: Actor, good: Path
) -> None:
    loop.models.import_folder(good)
    loop.models.activate(GOOD, "somebody found a better one meanwhile")
    actor.behave(candidate=str(loop.settings.model))
    # The candidate is the model that the run began with: its version is in the store already.
    done = go(loop, run.id)
    assert (done.status, done.phase) == ("rejected", "judge")
    assert done.miou_before == 1.0
    rejected = loop.models.get(BAD)
    assert rejected.state == "rejected"
    assert "against 1.0000" in (rejected.error or "")
    desired = loop.models.activated()
    assert desired is not None
    assert desired.version == GOOD


def test_what_the_trainer_says_when_it_fails_is_the_runs_error(loop: State, run: Run, actor: Actor) -> None:
    actor.behave(fail_at=2)
    done = go(loop, run.id)
    assert done.status == "failed"
    assert "lower the learning rate" in (done.error or "")
    assert loop.runs.events(run.id)[-1].event["status"] == "failed"
    # Another may start.
    assert loop.retrain_policy.start("manual").status == "queued"


def test_a_cancelled_run_stops_its_trainer(loop: State, run: Run, actor: Actor) -> None:
    actor.behave(steps=10_000)
    background = Background(loop, run.id)
    eventually(lambda: loop.runs.get(run.id).step is not None)
    loop.runs.request_cancel(run.id)
    background.join()
    assert loop.runs.get(run.id).status == "cancelled"
    assert not alive(actor.pids("train")[0])
    desired = loop.models.activated()
    assert desired is not None
    assert desired.version == BAD


def test_a_stopping_worker_gives_the_run_back_and_the_next_one_resumes(loop: State, run: Run, actor: Actor) -> None:
    actor.behave(steps=10_000)
    background = Background(loop, run.id)
    eventually(lambda: (loop.runs.get(run.id).step or 0) > 1)
    background.stopping.set()
    background.join()
    row = loop.runs.get(run.id)
    assert (row.status, row.attempts) == ("queued", 0)
    saved = row.step or 0
    actor.behave(steps=saved + 50, step_s=0)
    assert go(loop, run.id).status == "succeeded"
    first, second, _ = actor.history
    assert first == "train from 0"
    assert int(second.rpartition(" ")[2]) >= saved


def test_a_run_that_was_abandoned_goes_on_after_the_phases_that_are_done(loop: State, run: Run, actor: Actor) -> None:
    lease = claim(loop.database, run.id)
    assert lease is not None
    phases = Phases(
        settings=loop.settings,
        runs=loop.runs,
        images=loop.images,
        models=loop.models,
        lease=lease,
        interruption=lambda: None,
    )
    assert phases.run()
    # Here, between the activation and the last word about it, the worker dies.
    with loop.database.write() as session:
        row = session.get(Run, run.id)
        assert row is not None
        row.status = "queued"
    done = go(loop, run.id)
    assert (done.status, done.attempts) == ("succeeded", 2)
    assert actor.history == ["train from 0", "export"]
    assert activations(loop) == [BAD, GOOD]


def test_a_run_that_takes_too_long_is_stopped(
    loop: State, run: Run, actor: Actor, loop_settings: Callable[..., Settings]
) -> None:
    actor.behave(steps=10_000)
    done = go(loop, run.id, settings=loop_settings(run_timeout_s=1.5))
    assert done.status == "failed"
    assert "MASKLOOP_RUN_TIMEOUT_S" in (done.error or "")
    assert not alive(actor.pids("train")[0])


def test_a_worker_that_lost_its_run_stops_training(loop: State, run: Run, actor: Actor) -> None:
    actor.behave(steps=10_000)
    background = Background(loop, run.id)
    eventually(lambda: bool(actor.pids("train")))
    # Frozen for long (a laptop asleep, say), it finds that another worker has the run.
    with loop.database.write() as session:
        row = session.get(Run, run.id)
        assert row is not None
        row.status = "queued"
    taken = claim(loop.database, run.id)
    assert taken is not None
    background.join()
    assert not alive(actor.pids("train")[0])
    assert loop.runs.get(run.id).status == "running"
    time.sleep(6.5 * loop.settings.heartbeat_s)
    assert reap(loop.database, loop.settings.heartbeat_s) == [run.id]


def test_a_run_is_a_trace_of_its_phases(loop: State, run: Run, actor: Actor, monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        tracing = open_tracing(open_telemetry_variables())
        assert tracing is not None
        tracing.start()
        perform(
            run.id,
            threading.Event(),
            settings=loop.settings,
            database=loop.database,
            images=loop.images,
            models=loop.models,
            tracing=tracing,
        )
        tracing.close()
        whole = receiver.one("run")
        assert whole.attributes == {"maskloop.run.id": run.id}
        phases = [receiver.one(name) for name in ("prepare", "train", "export", "judge", "promote")]
        assert {phase.parent_id for phase in phases} == {whole.span_id}
        assert sum(phase.seconds for phase in phases) <= whole.seconds


@pytest.mark.parametrize(("precision", "words"), [("fp32", ""), ("int8", " --precision fp32,int8 --data ")])
def test_a_bundle_gets_the_graph_that_is_fast_here(loop: State, run: Run, precision: str, words: str) -> None:
    changed = loop.settings.model_copy(update={"precision": precision})
    assert go(loop, run.id, settings=changed).status == "succeeded"
    log = (loop.settings.data_dir / "runs" / run.id / "log.txt").read_text()
    (export,) = [line for line in log.splitlines() if " -m exporter export " in line]
    assert ("--precision" in export) == bool(words)
    assert words in export
