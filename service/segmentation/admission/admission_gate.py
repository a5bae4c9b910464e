"""Admission control: reject a request with 503 if the service is full or its queueing time would be too long.

Batch requests wait in a queue of their own. They get at most half of the capacity, and interactive requests go first.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from prometheus_client import Counter, Gauge

from service.errors import Overloaded
from service.segmentation.admission.priority_limiter import PriorityLimiter

RETRY_AFTER_S = 1


@dataclass(frozen=True, slots=True)
class WaitPolicy:
    """Limit on the queueing time of admitted requests."""

    estimate_s: Callable[[int], float]
    """Estimated queueing time in seconds behind `n` requests."""
    max_wait_s: float
    unlimited_requests: int
    """Up to this many interactive requests are admitted whatever the estimate, without a limit on their wait."""


class AdmissionGate:
    """Limits the requests in progress to `capacity`. Belongs to one event loop.

    Error messages contain `jobs`, what is limited, and `setting`, which sets `capacity`. Without `policy`, waiting time
    is unlimited.
    """

    def __init__(
        self,
        capacity: int,
        admitted: Gauge,
        rejected: Counter,
        policy: WaitPolicy | None = None,
        *,
        jobs: str = "images",
        setting: str = "MASKLOOP_MAX_CONCURRENT_REQUESTS",
    ) -> None:
        self._jobs, self._setting = jobs, setting
        self._capacity = capacity
        self._interactive = 0
        self._batch_capacity = max(1, capacity // 2)
        self._batch = PriorityLimiter(self._batch_capacity)
        admitted.set_function(lambda: self.in_progress)
        self._rejected = rejected
        self._policy = policy

    @property
    def in_progress(self) -> int:
        """Number of admitted requests."""
        return self._interactive + self._batch.active

    def check(self) -> float | None:
        """Return the longest time in queues for a request, in seconds (None: no limit), without admitting it.

        Raises:
            Overloaded: The service is full, or the estimated queueing time is too long. This counts as a rejection.
        """
        if self.in_progress >= self._capacity:
            raise self._reject(self._setting)
        policy = self._policy
        # Batch requests do not count: interactive ones go first.
        if policy is None or self._interactive < policy.unlimited_requests:
            return None
        if policy.estimate_s(self._interactive) > policy.max_wait_s:
            raise self.wait_exceeded()
        return policy.max_wait_s

    @asynccontextmanager
    async def admit(self) -> AsyncIterator[float | None]:
        """Admit an interactive request for the duration of the block; yields and raises as `check`."""
        max_wait_s = self.check()
        self._interactive += 1
        try:
            yield max_wait_s
        finally:
            self._interactive -= 1
            self._batch.reconsider()

    @asynccontextmanager
    async def admit_queued(self, urgency: int, timeout_s: float) -> AsyncIterator[None]:
        """Admit a batch request for the duration of the block; wait while half of the capacity or more is in use.

        A lower `urgency` goes first, then an earlier arrival. Raises Overloaded after `timeout_s` seconds.
        """
        try:
            async with asyncio.timeout(timeout_s):
                slots = await self._batch.acquire(urgency, lambda _: int(self.in_progress < self._batch_capacity))
        except TimeoutError:
            raise self._reject(self._setting) from None
        try:
            yield
        finally:
            self._batch.release(slots)

    def wait_exceeded(self) -> Overloaded:
        """Count a rejection and return the error for a request that would wait too long, or did."""
        return self._reject("MASKLOOP_MAX_WAIT_S")

    def _reject(self, setting: str) -> Overloaded:
        self._rejected.inc()
        return Overloaded(
            f"{self.in_progress} {self._jobs} are in progress or queued: try again in {RETRY_AFTER_S} s, or raise "
            f"{setting}.",
            retry_after_s=RETRY_AFTER_S,
        )
