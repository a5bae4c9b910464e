"""Webhooks: real messages of runs and releases to a real receiver, signatures, retries, restarts."""

from __future__ import annotations

import base64
import hashlib
import hmac
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError
from sqlalchemy import select, update

from service.runs.worker.perform import perform
from service.settings import Settings
from service.state import State, open_state
from service.storage.tables import WebhookMessage, utc_now
from service.webhooks.outbox import add_message
from service.webhooks.sender import PAUSES_S, UNSENDABLE_AFTER, send_due
from service.webhooks.signature import signed_headers
from tests.docs.blocks import ROOT, blocks
from tests.service.runs.conftest import GOOD, fill, register_worker
from tests.service.webhooks.receiver import Receiver, receiving

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 - of the specification's example


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as opened:
        yield opened


def configured(state: State, receiver: Receiver) -> Settings:
    return state.settings.model_copy(update={"webhook_url": receiver.url, "webhook_secret": SecretStr(SECRET)})


def pending(state: State) -> list[WebhookMessage]:
    with state.database.read() as session:
        return list(session.scalars(select(WebhookMessage).order_by(WebhookMessage.created_at)))


def add(state: State, kind: str = "run.judged") -> None:
    with state.database.write() as session:
        add_message(session, kind, {"run_id": "r1"})


def make_due(state: State, **values: Any) -> None:
    with state.database.write() as session:
        session.execute(update(WebhookMessage).values(due_at=utc_now() - timedelta(seconds=1), **values))


def test_signature_is_that_of_the_reference_implementation() -> None:
    """Computed by the package `standardwebhooks` 1.0.1 from PyPI."""
    headers = signed_headers("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}', SECRET)
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_documented_check_accepts_genuine_messages_only() -> None:
    (block,) = (block for block in blocks(ROOT / "docs" / "releases.md") if block.language == "python")
    names: dict[str, Any] = {}
    exec(block.text, names)  # noqa: S102 - a page of this repository
    headers = signed_headers("msg_1", 1_700_000_000, b"{}", SECRET)
    assert names["is_genuine"](SECRET, headers, b"{}")
    assert names["is_genuine"](SECRET, headers | {"webhook-signature": f"v1,x {headers['webhook-signature']}"}, b"{}")
    assert not names["is_genuine"](SECRET, headers, b"[]")
    assert not names["is_genuine"](SECRET, headers | {"webhook-timestamp": "1700000001"}, b"{}")


def test_run_and_its_release_are_reported(loop: State, receiver: Receiver) -> None:
    fill(loop)
    register_worker(loop)
    run = loop.retrain_policy.start("manual")
    stores = {"database": loop.database, "images": loop.images, "models": loop.models}
    perform(run.id, threading.Event(), settings=loop.settings, **stores)  # type: ignore[arg-type]
    assert send_due(loop.database, configured(loop, receiver)) == 4
    assert receiver.types == ["run.queued", "run.started", "release.serving", "run.judged"]
    data = receiver.messages[2]["data"]
    assert (data["release_id"], data["run_id"], data["version"], data["decided_by"]) == (1, run.id, GOOD, None)
    path, headers, body = receiver.requests[2]
    assert (path, headers["content-type"]) == ("/hook?source=test", "application/json")
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    digest = hmac.new(base64.b64decode(SECRET.removeprefix("whsec_")), signed, hashlib.sha256).digest()
    assert headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"
    assert pending(loop) == []


def test_rolled_back_change_is_not_reported(loop: State) -> None:
    def failing() -> None:
        with loop.database.write() as session:
            add_message(session, "run.judged", {})
            raise RuntimeError

    with pytest.raises(RuntimeError):
        failing()
    assert pending(loop) == []


def test_refused_message_is_retried_after_a_restart_with_the_same_id(loop: State, receiver: Receiver) -> None:
    add(loop)
    receiver.status = 503
    settings = configured(loop, receiver)
    assert send_due(loop.database, settings) == 0
    (waiting,) = pending(loop)
    assert waiting.attempts == 1
    # Not before its pause has passed.
    assert send_due(loop.database, settings) == 0
    assert len(receiver.requests) == 1
    receiver.status = 200
    restarted = open_state(loop.settings)
    make_due(restarted)
    assert send_due(restarted.database, settings) == 1
    restarted.close()
    first, second = (headers["webhook-id"] for _, headers, _ in receiver.requests)
    assert first == second == waiting.id
    assert pending(loop) == []


def test_message_of_a_worker_that_died_while_sending_is_sent_again(loop: State, receiver: Receiver) -> None:
    add(loop)
    # It had claimed the message.
    make_due(loop, attempts=1)
    assert send_due(loop.database, configured(loop, receiver)) == 1


def test_pauses_grow_and_the_message_is_dropped_after_three_days(loop: State, receiver: Receiver) -> None:
    add(loop)
    receiver.status = 500
    settings, pauses = configured(loop, receiver), []
    while pending(loop):
        make_due(loop)
        send_due(loop.database, settings)
        pauses += [(message.due_at - utc_now()).total_seconds() for message in pending(loop)]
    assert len(receiver.requests) == len(PAUSES_S)
    assert pauses == pytest.approx(PAUSES_S[:-1], abs=3)
    assert timedelta(days=2) < timedelta(seconds=sum(PAUSES_S)) < timedelta(days=4)


def test_receiver_that_is_gone_gets_no_further_attempt(loop: State, receiver: Receiver) -> None:
    add(loop)
    receiver.status = 410
    assert send_due(loop.database, configured(loop, receiver)) == 0
    assert pending(loop) == []


def test_redirect_is_not_followed(loop: State, receiver: Receiver) -> None:
    add(loop)
    with receiving() as other:
        receiver.status, receiver.location = 307, other.url
        assert send_due(loop.database, configured(loop, receiver)) == 0
        receiver.status = 302
        make_due(loop)
        assert send_due(loop.database, configured(loop, receiver)) == 0
        assert other.requests == []
    assert len(pending(loop)) == 1


def test_unreachable_receiver_loses_nothing(loop: State, receiver: Receiver) -> None:
    add(loop)
    settings = configured(loop, receiver).model_copy(update={"webhook_url": "http://127.0.0.1:9/"})
    assert send_due(loop.database, settings) == 0
    assert len(pending(loop)) == 1


@pytest.mark.parametrize("answer", [b"no HTTP\r\n\r\n", b"HTTP/1.1 204 x\r\n" + b"a" * 70_000, b""])
def test_receiver_that_does_not_speak_http_stops_neither_the_sweep_nor_other_messages(
    loop: State, receiver: Receiver, answer: bytes
) -> None:
    add(loop)
    with raw_receiver([answer]) as url:
        assert send_due(loop.database, configured(loop, receiver).model_copy(update={"webhook_url": url})) == 0
    (waiting,) = pending(loop)
    assert waiting.attempts == 1


def test_receiver_that_answers_a_byte_at_a_time_is_left_after_the_timeout(
    loop: State, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.webhooks.sender.TIMEOUT_S", 0.3)
    add(loop)
    begin = time.monotonic()
    with raw_receiver([b"HTTP/1.1", *([b" "] * 100)], pause_s=0.1) as url:
        assert send_due(loop.database, configured(loop, receiver).model_copy(update={"webhook_url": url})) == 0
    assert time.monotonic() - begin < 5
    assert len(pending(loop)) == 1


@contextmanager
def raw_receiver(answer: list[bytes], pause_s: float = 0.0) -> Iterator[str]:
    """Answer one connection with these bytes, and close it."""

    def work() -> None:
        connection, _ = server.accept()
        with connection, suppress(OSError):
            connection.recv(65536)
            for part in answer:
                connection.sendall(part)
                time.sleep(pause_s)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=work)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"
        thread.join()


def test_clock_that_was_set_back_does_not_stop_messages(loop: State, receiver: Receiver) -> None:
    add(loop)
    with loop.database.write() as session:
        session.execute(update(WebhookMessage).values(due_at=utc_now() + timedelta(days=400)))
    assert send_due(loop.database, configured(loop, receiver)) == 1


def test_two_workers_send_a_message_once(loop: State, receiver: Receiver) -> None:
    for _ in range(20):
        add(loop)
    settings, barrier = configured(loop, receiver), threading.Barrier(2)

    def work() -> None:
        barrier.wait()
        send_due(loop.database, settings)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(receiver.requests) == 20


def test_without_a_webhook_messages_are_dropped_when_no_other_worker_sent_them(loop: State) -> None:
    add(loop)
    assert send_due(loop.database, loop.settings) == 0
    assert len(pending(loop)) == 1
    with loop.database.write() as session:
        session.execute(update(WebhookMessage).values(created_at=utc_now() - UNSENDABLE_AFTER))
    assert send_due(loop.database, loop.settings) == 0
    assert pending(loop) == []


@pytest.mark.parametrize(
    ("url", "secret", "message"),
    [
        ("https://a.example/hook", "", "openssl rand -base64 32"),
        ("https://a.example/hook", "whsec_short", "24 to 64 bytes"),
        ("https://a.example/hook", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "must be whsec_"),
        ("file:///etc/passwd", SECRET, "must begin with https://"),
        ("https://user:password@a.example/", SECRET, "without a user name"),
    ],
)
def test_unusable_webhook_settings_are_refused(url: str, secret: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Settings(webhook_url=url, webhook_secret=SecretStr(secret))
