"""Admission gate: capacity, the queue of batch requests, and the limit on queueing time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import Overloaded
from service.metrics import Metrics
from service.segmentation.admission.admission_gate import AdmissionGate, WaitPolicy
from tests.service.conftest import sample


class MeasuredGate:
    """A gate with its metrics, and the order in which it admitted batch requests."""

    def __init__(self, capacity: int, policy: WaitPolicy | None = None) -> None:
        self.metrics = Metrics()
        self.gate = AdmissionGate(capacity, self.metrics.admitted, self.metrics.rejected.labels("overloaded"), policy)
        self.order: list[str] = []

    @property
    def rejections(self) -> float | None:
        return sample(self.metrics, "maskloop_segment_rejected_total", reason="overloaded")

    async def batch_request(self, name: str, finish: asyncio.Event, urgency: int = 6, timeout_s: float = 60) -> None:
        async with self.gate.admit_queued(urgency, timeout_s):
            self.order.append(name)
            await finish.wait()


async def run_other_tasks() -> None:
    for _ in range(4):
        await asyncio.sleep(0)


async def test_batch_requests_are_admitted_by_urgency_then_arrival() -> None:
    async with asyncio.timeout(10):
        measured = MeasuredGate(2)
        finish = asyncio.Event()
        finish.set()
        async with measured.gate.admit():
            requests = [("late", 7), ("first", 6), ("second", 6)]
            tasks = [asyncio.create_task(measured.batch_request(name, finish, urgency)) for name, urgency in requests]
            await run_other_tasks()
            assert measured.order == []
        await asyncio.gather(*tasks)
        assert measured.order == ["first", "second", "late"]
        assert measured.rejections == 0
        assert sample(measured.metrics, "maskloop_segment_admitted") == measured.gate.in_progress == 0


async def test_batch_requests_use_at_most_half_of_the_capacity() -> None:
    async with asyncio.timeout(10):
        measured, finish = MeasuredGate(4), asyncio.Event()
        tasks = [asyncio.create_task(measured.batch_request(str(number), finish)) for number in range(6)]
        await run_other_tasks()
        assert measured.gate.in_progress == 2
        async with measured.gate.admit(), measured.gate.admit():
            with pytest.raises(Overloaded, match="MASKLOOP_MAX_CONCURRENT_REQUESTS"):
                await measured.gate.admit().__aenter__()
        finish.set()
        await asyncio.gather(*tasks)
        assert measured.order == [str(number) for number in range(6)]


async def test_batch_requests_do_not_count_in_the_estimated_wait() -> None:
    """One second for each request ahead and a limit of 1.5 s: admitted behind one, rejected behind two."""
    policy = WaitPolicy(estimate_s=lambda ahead: 1.0 * ahead, max_wait_s=1.5, unlimited_requests=0)

    async with asyncio.timeout(10):
        measured, finish = MeasuredGate(20, policy), asyncio.Event()
        tasks = [asyncio.create_task(measured.batch_request(str(number), finish)) for number in range(10)]
        await run_other_tasks()
        assert measured.gate.in_progress == 10
        async with measured.gate.admit(), measured.gate.admit():
            with pytest.raises(Overloaded, match="MASKLOOP_MAX_WAIT_S"):
                await measured.gate.admit().__aenter__()
        finish.set()
        await asyncio.gather(*tasks)


async def test_check_decides_like_admit_without_admitting() -> None:
    policy = WaitPolicy(estimate_s=lambda ahead: 1.0 * ahead, max_wait_s=2.5, unlimited_requests=1)

    async with asyncio.timeout(10):
        limited, full = MeasuredGate(5, policy), MeasuredGate(1)
        assert limited.gate.check() is None
        async with limited.gate.admit(), limited.gate.admit(), limited.gate.admit() as max_wait_s:
            assert max_wait_s == 2.5
            with pytest.raises(Overloaded, match="MASKLOOP_MAX_WAIT_S"):
                limited.gate.check()
            assert limited.gate.in_progress == 3
        async with full.gate.admit():
            with pytest.raises(Overloaded, match="MASKLOOP_MAX_CONCURRENT_REQUESTS"):
                full.gate.check()
        assert full.rejections == 1


async def test_batch_request_that_is_not_admitted_in_time_is_rejected_once() -> None:
    async with asyncio.timeout(10):
        measured = MeasuredGate(1)
        async with measured.gate.admit():
            with pytest.raises(Overloaded):
                await measured.batch_request("late", asyncio.Event(), timeout_s=0.05)
        assert measured.rejections == 1
        async with measured.gate.admit_queued(6, 1):
            assert measured.gate.in_progress == 1


class RandomRequests:
    """Interactive and batch requests that start and end in any order."""

    def __init__(self) -> None:
        self.measured = MeasuredGate(4)
        self._interactive: list[AsyncExitStack] = []
        self._batch: list[tuple[asyncio.Task[None], asyncio.Event]] = []

    async def start_interactive(self, _: int) -> None:
        stack = AsyncExitStack()
        try:
            await stack.enter_async_context(self.measured.gate.admit())
            self._interactive.append(stack)
        except Overloaded:
            assert self.measured.gate.in_progress == 4

    async def start_batch(self, _: int) -> None:
        finish = asyncio.Event()
        self._batch.append((asyncio.create_task(self.measured.batch_request("one", finish)), finish))

    async def finish_interactive(self, which: int) -> None:
        if self._interactive:
            await self._interactive.pop(which % len(self._interactive)).aclose()

    async def finish_batch(self, which: int) -> None:
        if self._batch:
            self._batch[which % len(self._batch)][1].set()

    async def cancel_batch(self, which: int) -> None:
        if self._batch:
            self._batch[which % len(self._batch)][0].cancel()

    async def finish_all(self) -> None:
        while self._interactive:
            await self.finish_interactive(0)
        for _, finish in self._batch:
            finish.set()
        await asyncio.gather(*(task for task, _ in self._batch), return_exceptions=True)


STEPS = [
    RandomRequests.start_interactive,
    RandomRequests.start_batch,
    RandomRequests.finish_interactive,
    RandomRequests.finish_batch,
    RandomRequests.cancel_batch,
]


@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 9), st.booleans()), max_size=40))
async def test_requests_in_progress_never_exceed_the_capacity_and_return_to_zero(
    steps: list[tuple[Callable[[RandomRequests, int], Awaitable[None]], int, bool]],
) -> None:
    async with asyncio.timeout(10):
        requests = RandomRequests()
        for step, which, let_others_run in steps:
            await step(requests, which)
            if let_others_run:
                await run_other_tasks()
            assert 0 <= requests.measured.gate.in_progress <= 4
        await requests.finish_all()
        assert requests.measured.gate.in_progress == 0
        assert sample(requests.measured.metrics, "maskloop_segment_admitted") == 0
