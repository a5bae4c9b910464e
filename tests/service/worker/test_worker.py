"""Real Valkey, real Celery, real processes that are killed."""

from __future__ import annotations

import base64
import json
import signal
from collections.abc import Callable
from typing import Any

import pytest
import redis

from service.child_process import Child
from service.errors import QueueUnreachable
from service.queue import RUN_TASK, Queue
from service.settings import Settings
from service.state import State
from service.storage.tables import Worker
from service.worker.sweeper import can_train
from tests.service.conftest import eventually
from tests.service.runs.actor import Actor, alive
from tests.service.runs.conftest import GOOD, fill
from tests.service.worker.conftest import WorkerProcess

Hire = Callable[[], WorkerProcess]


def workers(state: State) -> list[Worker]:
    with state.database.read() as session:
        return list(session.query(Worker))


def status(state: State) -> str:
    return state.runs.list()[0].status


def test_images_start_a_run_that_ends_with_a_better_model(shop: State, hire: Hire, actor: Actor) -> None:
    worker = hire()
    eventually(lambda: any(row.can_train for row in workers(shop)), within_s=30)
    fill(shop)
    run = shop.retrain_policy.consider()
    assert run is not None
    eventually(lambda: status(shop) == "succeeded", within_s=30)
    desired = shop.models.activated()
    assert desired is not None
    assert desired.version == GOOD
    assert worker.end(signal.SIGTERM) == 0
    assert workers(shop) == []


def test_a_message_that_never_arrived_is_made_good_by_the_sweep(shop: State, hire: Hire) -> None:
    fill(shop)
    hire()
    # No process but the worker itself looks at the pool.
    eventually(lambda: bool(shop.runs.list()) and status(shop) == "succeeded", within_s=30)
    assert shop.runs.list()[0].reason == "auto"


def test_a_worker_that_cannot_train_starts_nothing(shop: State, hire: Hire, actor: Actor) -> None:
    actor.behave(installed=False)
    fill(shop)
    hire()
    eventually(lambda: bool(workers(shop)), within_s=30)
    assert not workers(shop)[0].can_train
    assert shop.retrain_policy.consider() is None


def test_killed_in_the_middle_the_trainer_dies_too_and_the_next_worker_resumes(
    shop: State, hire: Hire, actor: Actor
) -> None:
    actor.behave(steps=10_000)
    fill(shop)
    first = hire()
    eventually(lambda: bool(shop.runs.list()) and (shop.runs.list()[0].step or 0) > 3, within_s=30)
    (trainer,) = actor.pids("train")
    first.end(signal.SIGKILL)
    eventually(lambda: not alive(trainer))
    assert status(shop) == "running"
    reached = shop.runs.list()[0].step or 0
    actor.behave(steps=reached + 100, step_s=0)
    hire()
    eventually(lambda: status(shop) == "succeeded", within_s=30)
    begun = [int(line.rpartition(" ")[2]) for line in actor.history if line.startswith("train")]
    assert begun[0] == 0
    assert begun[1] >= reached
    assert shop.runs.list()[0].attempts == 2


def test_asked_to_end_it_saves_the_run_and_leaves_it_to_the_next_worker(shop: State, hire: Hire, actor: Actor) -> None:
    actor.behave(steps=10_000)
    fill(shop)
    first = hire()
    eventually(lambda: bool(shop.runs.list()) and (shop.runs.list()[0].step or 0) > 3, within_s=30)
    assert first.end(signal.SIGTERM) == 0
    assert not alive(actor.pids("train")[0])
    assert (status(shop), shop.runs.list()[0].attempts) == ("queued", 0)
    actor.behave(steps=20)
    hire()
    eventually(lambda: status(shop) == "succeeded", within_s=30)
    assert actor.history[-2].startswith("train from ")
    assert actor.history[-2] != "train from 0"


def test_a_broker_that_goes_away_and_comes_back(shop: State, hire: Hire, broker: Child) -> None:
    hire()
    eventually(lambda: bool(workers(shop)), within_s=30)
    broker.stop(force=lambda: True)
    with pytest.raises(QueueUnreachable):
        shop.queue.enqueue(RUN_TASK, "any")
    fill(shop)
    run = shop.retrain_policy.start("manual")
    assert run.status == "queued"
    broker.start()
    eventually(lambda: status(shop) == "succeeded", within_s=60)


def test_only_ids_travel_and_nothing_is_kept(shop: State, worker_settings: Settings) -> None:
    shop.queue.enqueue(RUN_TASK, "some-id")
    client: Any = redis.Redis.from_url(worker_settings.broker_url.replace("redis+socket", "unix"))
    assert all(key.startswith(b"maskloop:") for key in client.scan_iter())
    (message,) = [json.loads(raw) for raw in client.lrange("maskloop:maskloop", 0, -1)]
    assert message["content-type"] == "application/json"
    arguments, named, _ = json.loads(base64.b64decode(message["body"]))
    assert (arguments, named) == (["some-id"], {})
    client.close()


def test_without_a_broker() -> None:
    queue = Queue("")
    with pytest.raises(QueueUnreachable, match="service up"):
        queue.enqueue(RUN_TASK, "x")
    queue.close()


def test_whether_an_interpreter_can_train(actor: Actor) -> None:
    assert can_train(str(actor.python))
    actor.behave(installed=False)
    assert not can_train(str(actor.python))
    assert not can_train("/no/such/python")
