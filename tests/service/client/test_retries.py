"""What is sent again, and what a caller learns if it is in vain."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from service.client.call_errors import (
    CallError,
    Conflict,
    KeyRefused,
    Refused,
    TimedOut,
    TryLater,
    UnexpectedAnswer,
    Unreachable,
)
from service.client.retries import Retries, retry_after_s
from service.client.sync_client import Client
from tests.service.client.scripted_server import Script, Scripted, scripted_server

RUNS = Scripted(200, b'{"runs": [], "next_cursor": null}')
LOST = Scripted(0)
FAST = Retries(attempts=3, first_pause_s=0.01)


def problem(status: int, slug: str = "overloaded", **headers: str) -> Scripted:
    body = {"type": f"urn:maskloop:problem:{slug}", "title": "T", "status": status, "detail": "What to do."}
    return Scripted(status, json.dumps(body).encode(), {"Content-Type": "application/problem+json", **headers})


LATER = {"Retry-After": "0"}


@pytest.fixture
def script() -> Iterator[Script]:
    with scripted_server() as server:
        yield server


@pytest.fixture
def client(script: Script) -> Iterator[Client]:
    with Client(script.url, retries=FAST) as opened:
        yield opened


@pytest.mark.parametrize(
    "first", [problem(503, **LATER), problem(429, **LATER), problem(429), Scripted(503, b"<html>"), LOST]
)
def test_repeatable_call_is_sent_again(client: Client, script: Script, first: Scripted) -> None:
    script.answers = [first, RUNS]
    assert list(client.list_runs()) == []
    assert len(script.requests) == 2


@pytest.mark.parametrize(
    ("answer", "error"), [(problem(503, **LATER), TryLater), (LOST, Unreachable), (problem(409), Conflict)]
)
def test_run_is_not_started_twice(client: Client, script: Script, answer: Scripted, error: type[CallError]) -> None:
    script.answers = [answer]
    with pytest.raises(error):
        client.start_run()
    assert script.requests == ["POST /v1/runs"]


def test_start_that_the_rate_limit_refused_is_sent_again(client: Client, script: Script) -> None:
    script.answers = [problem(429, **LATER)]
    with pytest.raises(TryLater):
        client.start_run()
    assert len(script.requests) == 3


@pytest.mark.parametrize(
    "final", [problem(503, "no-model"), problem(503, **{"Retry-After": "3600"}), problem(404), problem(401)]
)
def test_answer_that_waiting_does_not_change_is_final(client: Client, script: Script, final: Scripted) -> None:
    script.answers = [final]
    with pytest.raises(Refused, match=r"^What to do\.$") as caught:
        list(client.list_runs())
    assert len(script.requests) == 1
    assert caught.value.status == final.status
    assert isinstance(caught.value, KeyRefused) == (final.status == 401)


def test_error_says_when_to_come_back(client: Client, script: Script) -> None:
    script.answers = [problem(429, "rate-limited", **{"Retry-After": "90"})]
    with pytest.raises(TryLater) as caught:
        client.list_models()
    assert (caught.value.retry_after_s, caught.value.slug) == (90.0, "rate-limited")


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (Scripted(502, b"<html>"), r"answered 502 \(Bad Gateway\) without an explanation"),
        (Scripted(307, b"", {"Location": "https://example.com"}), "redirects to https://example.com: give that server"),
    ],
)
def test_other_servers_are_recognised(client: Client, script: Script, answer: Scripted, text: str) -> None:
    script.answers = [answer]
    with pytest.raises(UnexpectedAnswer, match=text):
        client.list_models()


def test_silent_service_is_not_asked_again(script: Script) -> None:
    script.answers = [Scripted(200, delay_s=1.0)]
    with Client(script.url, timeout_s=0.3, retries=FAST) as client, pytest.raises(TimedOut, match="allow more time"):
        list(client.list_runs())
    assert len(script.requests) == 1


def test_service_on_this_machine_is_asked_without_a_proxy(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    script.answers = [RUNS]
    with Client(script.url, retries=FAST) as client:
        assert list(client.list_runs()) == []


def test_unreachable_service_is_named_with_a_remedy() -> None:
    with Client("http://127.0.0.1:9", retries=FAST) as client, pytest.raises(Unreachable, match="start the service"):
        client.start_run()


def test_retry_after_may_be_a_date() -> None:
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert 55 < (retry_after_s(httpx.Response(503, headers={"Retry-After": at})) or 0) <= 60
    assert retry_after_s(httpx.Response(503, headers={"Retry-After": "Mon, 30 Nov 2020 10:00:00 -0000"})) == 0
    assert retry_after_s(httpx.Response(503, headers={"Retry-After": "soon"})) is None
    assert retry_after_s(httpx.Response(503)) is None


def test_pauses_grow_and_have_a_limit() -> None:
    retries = Retries(first_pause_s=1.0, longest_pause_s=4.0)
    longest = [max(retries.pause_s(attempt) for _ in range(300)) for attempt in (1, 2, 3, 9)]
    for most, found in zip((1, 2, 4, 4), longest, strict=True):
        assert most / 2 < found <= most
