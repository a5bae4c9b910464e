"""Rate limits per caller and per address."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.keys import rate_limits as module
from service.keys.caller import Caller
from service.keys.rate_limits import QuotaExceeded, RateLimits

CAMERA = Caller("camera", "camera", frozenset(), 3)


def is_allowed(rates: RateLimits, caller: Caller) -> bool:
    try:
        rates.take(caller)
    except QuotaExceeded:
        return False
    return True


def test_limit_of_three_per_minute() -> None:
    rates = RateLimits()
    left = [rates.take(CAMERA) for _ in range(3)]
    assert [quota and quota.remaining for quota in left] == [2, 1, 0]
    with pytest.raises(QuotaExceeded, match="3 requests per minute") as refused:
        rates.take(CAMERA)
    # One token per 20 s; the test itself takes a moment.
    assert refused.value.retry_after_s in {19, 20}
    assert refused.value.quota.headers() == {
        "RateLimit-Policy": '"minute";q=3;w=60',
        "RateLimit": f'"minute";r=0;t={refused.value.quota.reset_s}',
    }
    assert 58 <= refused.value.quota.reset_s <= 60


def test_callers_have_separate_buckets() -> None:
    rates = RateLimits()
    other = replace(CAMERA, id="other")
    assert [is_allowed(rates, caller) for caller in [CAMERA] * 4 + [other] * 4] == ([True] * 3 + [False]) * 2


def test_bucket_refills(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("throttled.utils.now_mono_f", lambda: now)
    rates = RateLimits()
    assert [is_allowed(rates, CAMERA) for _ in range(4)] == [True, True, True, False]
    now += 19.9
    assert not is_allowed(rates, CAMERA)
    now += 0.2
    assert [is_allowed(rates, CAMERA) for _ in range(2)] == [True, False]
    now += 600
    assert [is_allowed(rates, CAMERA) for _ in range(4)] == [True, True, True, False]


@given(st.integers(1, 200), st.integers(0, 300))
def test_burst_is_limited(limit: int, asked: int) -> None:
    caller = replace(CAMERA, rate_per_minute=limit)
    rates = RateLimits()
    # The fastest bucket gains a token every 0.3 s, which a slow machine may see.
    assert min(limit, asked) <= sum(is_allowed(rates, caller) for _ in range(asked)) <= min(limit + 3, asked)


def test_raised_limit_applies_at_once() -> None:
    rates = RateLimits()
    assert [is_allowed(rates, CAMERA) for _ in range(4)][-1] is False
    assert is_allowed(rates, replace(CAMERA, rate_per_minute=10))
    assert rates.take(replace(CAMERA, rate_per_minute=0)) is None


def is_exceeded(rates: RateLimits, address: str, per_minute: int = 2) -> bool:
    """Count one invalid key; whether the limit is exceeded."""
    try:
        rates.count_failure(address, per_minute)
    except QuotaExceeded:
        return True
    return False


def test_invalid_keys_are_limited_by_address_and_separately_from_requests() -> None:
    rates = RateLimits()
    assert [is_exceeded(rates, "10.0.0.1") for _ in range(3)] == [False, False, True]
    assert not is_exceeded(rates, "10.0.0.2")
    assert [is_allowed(rates, replace(CAMERA, id="10.0.0.1")) for _ in range(4)] == [True, True, True, False]
    assert not any(is_exceeded(rates, "10.0.0.3", 0) for _ in range(100))
    with pytest.raises(QuotaExceeded, match="2 invalid keys per minute from one address") as refused:
        rates.count_failure("10.0.0.1", 2)
    assert refused.value.retry_after_s in {29, 30}


def test_many_addresses_neither_exhaust_memory_nor_evict_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BUCKETS", 10)
    rates = RateLimits()
    assert [is_allowed(rates, CAMERA) for _ in range(4)] == [True, True, True, False]
    for number in range(100):
        rates.count_failure(f"10.0.0.{number}", 2)
    assert len(rates._failures._store._backend.get_client()) == 10
    assert not is_allowed(rates, CAMERA)
