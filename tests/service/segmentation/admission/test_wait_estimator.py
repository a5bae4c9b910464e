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
    pace = WaitEstimator(4)
    assert pace.wait_s(10) == 0
    pace.took(0.4, 2)
    assert pace.wait_s(10) == pytest.approx(2.0)


def test_the_pace_follows_what_happens() -> None:
    pace = WaitEstimator(1)
    pace.took(1.0, 1)
    for _ in range(100):
        pace.took(0.1, 1)
    assert pace.seconds == pytest.approx(0.1, rel=0.01)


def test_a_large_image_among_small_ones_does_not_shut_the_door() -> None:
    pace = WaitEstimator(1)
    for seconds in (0.1, 0.1, 0.1, 8.0):
        pace.took(seconds, 1)
    assert pace.seconds == pytest.approx((3 * 0.1 + 0.2) / 4)
    # Nor does a large one that was the first of all, for long.
    pace = WaitEstimator(1)
    for seconds in (8.0, *[0.1] * 30):
        pace.took(seconds, 1)
    assert pace.seconds < 0.25


def test_where_all_are_slow_it_is_soon_known() -> None:
    pace = WaitEstimator(1)
    for seconds in (*[0.1] * 20, *[1.0] * 40):
        pace.took(seconds, 1)
    assert pace.seconds == pytest.approx(1.0, rel=0.2)


def test_nobody_waits_longer_than_allowed_and_a_few_always_may() -> None:
    metrics = Metrics()
    slow = WaitPolicy(wait_s=lambda ahead: 10.0 * ahead, longest_s=3.0, always=2)
    quick = WaitPolicy(wait_s=lambda ahead: 1.0 * ahead, longest_s=3.0, always=2)

    async def inside(patience: WaitPolicy) -> int:
        door = AdmissionGate(100, metrics.admitted, metrics.rejected.labels("overloaded"), patience)

        async def come() -> None:
            while True:
                await stack.enter_async_context(door.place())

        async with AsyncExitStack() as stack:
            with pytest.raises(Overloaded, match="MASKLOOP_MAX_WAIT_S"):
                await come()
            return door.inside

    # Behind three it is three seconds, which is allowed.
    assert (asyncio.run(inside(slow)), asyncio.run(inside(quick))) == (2, 4)
