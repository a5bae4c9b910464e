"""Buckets that fill steadily."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.keys import rate_limits as rates_module
from service.keys.caller import Caller
from service.keys.rate_limits import RateLimits, TooMany

CAMERA = Caller("camera", "camera", frozenset(), 3)


def taken(rates: RateLimits, caller: Caller) -> bool:
    try:
        rates.take(caller)
    except TooMany:
        return False
    return True


def test_three_a_minute() -> None:
    rates = RateLimits()
    left = [rates.take(CAMERA) for _ in range(3)]
    assert [quota and quota.remaining for quota in left] == [2, 1, 0]
    with pytest.raises(TooMany, match="3 requests a minute") as refused:
        rates.take(CAMERA)
    # One in twenty seconds; the test itself takes a moment of them.
    assert refused.value.retry_after_s in {19, 20}
    assert refused.value.quota.headers() == {
        "RateLimit-Policy": '"minute";q=3;w=60',
        "RateLimit": f'"minute";r=0;t={refused.value.quota.reset_s}',
    }
    assert 58 <= refused.value.quota.reset_s <= 60


def test_each_has_a_bucket_of_their_own() -> None:
    rates = RateLimits()
    other = replace(CAMERA, id="other")
    assert [taken(rates, caller) for caller in [CAMERA] * 4 + [other] * 4] == ([True] * 3 + [False]) * 2


def test_it_fills_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("throttled.utils.now_mono_f", lambda: now)
    rates = RateLimits()
    assert [taken(rates, CAMERA) for _ in range(4)] == [True, True, True, False]
    now += 19.9
    assert not taken(rates, CAMERA)
    now += 0.2
    assert [taken(rates, CAMERA) for _ in range(2)] == [True, False]
    now += 600
    assert [taken(rates, CAMERA) for _ in range(4)] == [True, True, True, False]


@given(st.integers(1, 200), st.integers(0, 300))
def test_so_many_and_no_more(limit: int, asked: int) -> None:
    caller = replace(CAMERA, rate_per_minute=limit)
    rates = RateLimits()
    # The fastest bucket gains one every 0.3 s: a slow machine may see it.
    assert min(limit, asked) <= sum(taken(rates, caller) for _ in range(asked)) <= min(limit + 3, asked)


def test_a_raised_limit_counts_at_once() -> None:
    rates = RateLimits()
    assert [taken(rates, CAMERA) for _ in range(4)][-1] is False
    assert taken(rates, replace(CAMERA, rate_per_minute=10))
    assert rates.take(replace(CAMERA, rate_per_minute=0)) is None


def failed(rates: RateLimits, address: str, per_minute: int = 2) -> bool:
    """Whether one more key that is none is too many."""
    try:
        rates.fail(address, per_minute)
    except TooMany:
        return True
    return False


def test_keys_that_are_none_are_counted_by_address_and_beside_requests() -> None:
    rates = RateLimits()
    assert [failed(rates, "10.0.0.1") for _ in range(3)] == [False, False, True]
    assert not failed(rates, "10.0.0.2")
    assert [taken(rates, replace(CAMERA, id="10.0.0.1")) for _ in range(4)] == [True, True, True, False]
    assert not any(failed(rates, "10.0.0.3", 0) for _ in range(100))
    with pytest.raises(TooMany, match="nor were 2 others from this address") as refused:
        rates.fail("10.0.0.1", 2)
    assert refused.value.retry_after_s in {29, 30}


def test_whoever_changes_addresses_takes_no_more_memory_and_nobodys_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates_module, "MOST_CALLERS", 10)
    rates = RateLimits()
    assert [taken(rates, CAMERA) for _ in range(4)] == [True, True, True, False]
    for number in range(100):
        rates.fail(f"10.0.0.{number}", 2)
    assert len(rates._failures._store._backend.get_client()) == 10
    assert not taken(rates, CAMERA)
