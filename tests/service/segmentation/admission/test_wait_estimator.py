"""How long one waits, and who is not let in for it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from service.errors import Overloaded
from service.metrics import Metrics
from service.segmentation.admission.admission_gate import AdmissionGate, WaitPolicy
from service.segmentation.admission.wait_estimator import WaitEstimator


def test_an_inference_on_half_the_cores_takes_half_their_time() -> None:
    estimator = WaitEstimator(4)
    assert estimator.wait_s(10) == 0
    estimator.record(0.4, 2)
    assert estimator.wait_s(10) == pytest.approx(2.0)


def test_the_pace_follows_what_happens() -> None:
    estimator = WaitEstimator(1)
    estimator.record(1.0, 1)
    for _ in range(100):
        estimator.record(0.1, 1)
    assert estimator.mean_s == pytest.approx(0.1, rel=0.01)


def test_a_large_image_among_small_ones_does_not_shut_the_door() -> None:
    estimator = WaitEstimator(1)
    for seconds in (0.1, 0.1, 0.1, 8.0):
        estimator.record(seconds, 1)
    assert estimator.mean_s == pytest.approx((3 * 0.1 + 0.2) / 4)
    # Nor does a large one that was the first of all, for long.
    estimator = WaitEstimator(1)
    for seconds in (8.0, *[0.1] * 30):
        estimator.record(seconds, 1)
    assert estimator.mean_s < 0.25


def test_where_all_are_slow_it_is_soon_known() -> None:
    estimator = WaitEstimator(1)
    for seconds in (*[0.1] * 20, *[1.0] * 40):
        estimator.record(seconds, 1)
    assert estimator.mean_s == pytest.approx(1.0, rel=0.2)


def test_nobody_waits_longer_than_allowed_and_a_few_always_may() -> None:
    metrics = Metrics()
    slow = WaitPolicy(estimate_s=lambda ahead: 10.0 * ahead, max_wait_s=3.0, unlimited_requests=2)
    quick = WaitPolicy(estimate_s=lambda ahead: 1.0 * ahead, max_wait_s=3.0, unlimited_requests=2)

    async def inside(policy: WaitPolicy) -> int:
        gate = AdmissionGate(100, metrics.admitted, metrics.rejected.labels("overloaded"), policy)

        async def come() -> None:
            while True:
                await stack.enter_async_context(gate.admit())

        async with AsyncExitStack() as stack:
            with pytest.raises(Overloaded, match="MASKLOOP_MAX_WAIT_S"):
                await come()
            return gate.in_progress

    # Behind three it is three seconds, which is allowed.
    assert (asyncio.run(inside(slow)), asyncio.run(inside(quick))) == (2, 4)
