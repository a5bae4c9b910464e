"""Wait estimator, and the rejection of requests whose estimated wait is too long."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from service.errors import Overloaded
from service.metrics import Metrics
from service.segmentation.admission.admission_gate import AdmissionGate, WaitPolicy
from service.segmentation.admission.wait_estimator import WaitEstimator


def test_inference_on_half_of_the_cores_counts_half_its_time() -> None:
    estimator = WaitEstimator(4)
    assert estimator.wait_s(10) == 0
    estimator.record(0.4, 2)
    assert estimator.wait_s(10) == pytest.approx(2.0)


def test_mean_follows_recent_inferences() -> None:
    estimator = WaitEstimator(1)
    estimator.record(1.0, 1)
    for _ in range(100):
        estimator.record(0.1, 1)
    assert estimator.mean_s == pytest.approx(0.1, rel=0.01)


def test_one_slow_inference_changes_the_mean_little() -> None:
    estimator = WaitEstimator(1)
    for seconds in (0.1, 0.1, 0.1, 8.0):
        estimator.record(seconds, 1)
    assert estimator.mean_s == pytest.approx((3 * 0.1 + 0.2) / 4)
    # A slow first inference does not dominate the mean for long.
    estimator = WaitEstimator(1)
    for seconds in (8.0, *[0.1] * 30):
        estimator.record(seconds, 1)
    assert estimator.mean_s < 0.25


def test_mean_rises_if_all_inferences_become_slow() -> None:
    estimator = WaitEstimator(1)
    for seconds in (*[0.1] * 20, *[1.0] * 40):
        estimator.record(seconds, 1)
    assert estimator.mean_s == pytest.approx(1.0, rel=0.2)


@pytest.mark.parametrize(
    ("estimated_s", "admitted"),
    # Two are always admitted. With 1 s each, a request behind three waits 3 s, which is the limit.
    [(10.0, 2), (1.0, 4)],
)
async def test_requests_above_the_wait_limit_are_rejected_except_the_unlimited_ones(
    estimated_s: float, admitted: int
) -> None:
    policy = WaitPolicy(estimate_s=lambda ahead: estimated_s * ahead, max_wait_s=3.0, unlimited_requests=2)
    metrics = Metrics()
    gate = AdmissionGate(100, metrics.admitted, metrics.rejected.labels("overloaded"), policy)

    async def admit_until_rejected(stack: AsyncExitStack) -> None:
        while True:
            await stack.enter_async_context(gate.admit())

    async with AsyncExitStack() as stack:
        with pytest.raises(Overloaded, match="MASKLOOP_MAX_WAIT_S"):
            await admit_until_rejected(stack)
        assert gate.in_progress == admitted
