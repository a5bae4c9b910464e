"""Worker processes, with a real Valkey server and real Celery; some are killed."""

from __future__ import annotations

import base64
import json
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis

from service.child_process import Child
from service.errors import QueueUnreachable
from service.queue import RUN_TASK, Queue
from service.settings import Settings
from service.state import State
from service.storage.analysis_tables import ImageAnalysis
from service.storage.tables import Worker
from service.worker.sweeper import can_train, delete_dead_workers
from tests.service.conftest import encoded, eventually
from tests.service.runs.actor import Actor, alive
from tests.service.runs.conftest import GOOD, SteppedClock, fill, register_worker
from tests.service.tiny_bundle import picture
from tests.service.worker.conftest import WorkerProcess

StartWorker = Callable[[], WorkerProcess]


def workers(state: State) -> list[Worker]:
    with state.database.read() as session:
        return list(session.query(Worker))


def status(state: State) -> str:
    return state.runs.list()[0].status


def test_images_start_a_run_that_activates_a_better_model(
    api_state: State, start_worker: StartWorker, actor: Actor
) -> None:
    worker = start_worker()
    eventually(lambda: any(row.can_train for row in workers(api_state)))
    fill(api_state)
    run = api_state.retrain_policy.consider()
    assert run is not None
    eventually(lambda: status(api_state) == "judged")
    activated = api_state.models.activated()
    assert activated is not None
    assert activated.version == GOOD
    assert worker.end(signal.SIGTERM) == 0
    assert workers(api_state) == []


def test_sweeper_starts_a_due_run(api_state: State, start_worker: StartWorker) -> None:
    fill(api_state)
    start_worker()
    # Only the sweeper of the worker checks the pool.
    eventually(lambda: bool(api_state.runs.list()) and status(api_state) == "judged")
    assert api_state.runs.list()[0].reason == "images"


def test_worker_analyses_the_pool_and_marks_near_duplicates(api_state: State, start_worker: StartWorker) -> None:
    pixels = picture(96, 72)
    first = api_state.images.add(encoded(pixels))[0]
    copy = api_state.images.add(encoded(pixels, "JPEG", quality=80))[0]
    worker = start_worker()
    eventually(lambda: api_state.images.get(copy.id).duplicate_of == first.id)
    late = api_state.images.add(encoded(picture(seed=1)))[0]

    def analysed() -> set[int]:
        with api_state.database.read() as session:
            return {row.sequence for row in session.query(ImageAnalysis)}

    eventually(lambda: analysed() == {first.sequence, copy.sequence, late.sequence})
    assert worker.end(signal.SIGTERM) == 0


def test_worker_that_cannot_train_starts_no_run(api_state: State, start_worker: StartWorker, actor: Actor) -> None:
    actor.behave(installed=False)
    fill(api_state)
    start_worker()
    eventually(lambda: bool(workers(api_state)))
    assert not workers(api_state)[0].can_train
    assert api_state.retrain_policy.consider() is None


def test_trainer_dies_with_a_killed_worker_and_the_next_worker_resumes(
    api_state: State, start_worker: StartWorker, actor: Actor
) -> None:
    actor.behave(steps=10_000)
    fill(api_state)
    first = start_worker()
    eventually(lambda: bool(api_state.runs.list()) and (api_state.runs.list()[0].step or 0) > 3)
    (trainer,) = actor.pids("train")
    first.end(signal.SIGKILL)
    eventually(lambda: not alive(trainer))
    assert status(api_state) == "running"
    reached = api_state.runs.list()[0].step or 0
    actor.behave(steps=reached + 100, step_s=0)
    start_worker()
    eventually(lambda: status(api_state) == "judged")
    first_steps = [int(line.rpartition(" ")[2]) for line in actor.history if line.startswith("train")]
    assert first_steps[0] == 0
    assert first_steps[1] >= reached
    # The first attempt made progress.
    assert (api_state.runs.list()[0].attempts, api_state.runs.list()[0].fence) == (1, 2)


def test_sigterm_saves_the_run_and_the_next_worker_resumes_it(
    api_state: State, start_worker: StartWorker, actor: Actor
) -> None:
    actor.behave(steps=10_000)
    fill(api_state)
    first = start_worker()
    eventually(lambda: bool(api_state.runs.list()) and (api_state.runs.list()[0].step or 0) > 3)
    assert first.end(signal.SIGTERM) == 0
    assert not alive(actor.pids("train")[0])
    assert (status(api_state), api_state.runs.list()[0].attempts) == ("queued", 0)
    actor.behave(steps=20)
    start_worker()
    eventually(lambda: status(api_state) == "judged")
    assert actor.history[-2].startswith("train from ")
    assert actor.history[-2] != "train from 0"


def test_run_of_a_killed_worker_continues_at_once_on_the_same_machine(
    api_state: State, worker_settings: Settings, actor: Actor
) -> None:
    """Its silence would take six minutes; the next worker's first sweep finds that the process has ended."""
    actor.behave(steps=10_000)
    fill(api_state)
    settings = worker_settings.model_copy(update={"heartbeat_s": 60.0})
    workers = [WorkerProcess(settings)]
    try:
        eventually(lambda: bool(api_state.runs.list()) and api_state.runs.list()[0].saved_step > 3)
        workers[0].end(signal.SIGKILL)
        actor.behave(steps=api_state.runs.list()[0].saved_step + 50, step_s=0)
        workers.append(WorkerProcess(settings))
        eventually(lambda: status(api_state) == "judged", within_s=120)
    finally:
        for worker in workers:
            worker.end(signal.SIGKILL)


def test_suspended_worker_does_not_reap_its_own_run(api_state: State, start_worker: StartWorker, actor: Actor) -> None:
    actor.behave(steps=10_000)
    fill(api_state)
    worker = start_worker()
    eventually(lambda: bool(api_state.runs.list()) and api_state.runs.list()[0].saved_step > 3)
    (trainer,) = actor.pids("train")
    for _ in range(3):
        beats = api_state.runs.list()[0].beats
        for number in (signal.SIGSTOP, signal.SIGCONT):
            worker.process.send_signal(number)
            os.kill(trainer, number)
            # Longer than the silence after which a run counts as abandoned.
            time.sleep(1.5 * api_state.liveness.limit_s if number == signal.SIGSTOP else 0)
        eventually(lambda beats=beats: api_state.runs.list()[0].beats > beats + 4)  # type: ignore[misc]
    run = api_state.runs.list()[0]
    assert (run.status, run.fence) == ("running", 1)
    assert alive(trainer)


def test_rows_of_dead_workers_are_deleted(loop: State, clock: SteppedClock) -> None:
    register_worker(loop)
    for _ in range(2):
        delete_dead_workers(loop.database, loop.liveness)
        clock.step(5 * loop.liveness.limit_s)
    assert len(workers(loop)) == 1
    register_worker(loop)
    delete_dead_workers(loop.database, loop.liveness)
    assert len(workers(loop)) == 1
    clock.step(11 * loop.liveness.limit_s)
    delete_dead_workers(loop.database, loop.liveness)
    assert workers(loop) == []


def test_run_queued_without_a_broker_starts_when_it_returns(
    api_state: State, start_worker: StartWorker, broker: Child
) -> None:
    start_worker()
    eventually(lambda: bool(workers(api_state)))
    broker.stop(force=lambda: True)
    with pytest.raises(QueueUnreachable):
        api_state.queue.enqueue(RUN_TASK, "any")
    fill(api_state)
    run = api_state.retrain_policy.start("manual")
    assert run.status == "queued"
    broker.start()
    eventually(lambda: status(api_state) == "judged")


def test_messages_contain_only_ids(api_state: State, worker_settings: Settings) -> None:
    api_state.queue.enqueue(RUN_TASK, "some-id")
    client: Any = redis.Redis.from_url(worker_settings.broker_url.replace("redis+socket", "unix"))
    assert all(key.startswith(b"maskloop:") for key in client.scan_iter())
    (message,) = [json.loads(raw) for raw in client.lrange("maskloop:maskloop", 0, -1)]
    assert message["content-type"] == "application/json"
    arguments, keyword_arguments, _ = json.loads(base64.b64decode(message["body"]))
    assert (arguments, keyword_arguments) == (["some-id"], {})
    client.close()


def test_enqueue_without_a_broker_url_is_rejected() -> None:
    queue = Queue("")
    with pytest.raises(QueueUnreachable, match="maskloop up"):
        queue.enqueue(RUN_TASK, "x")
    queue.close()


def test_can_train_checks_the_trainer_of_the_interpreter(actor: Actor) -> None:
    assert can_train(str(actor.python))
    actor.behave(installed=False)
    assert not can_train(str(actor.python))
    assert not can_train("/no/such/python")
