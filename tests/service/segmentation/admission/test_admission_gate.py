"""The line beside the gate: order, precedence, and those who give up."""

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


class Scene:
    """A gate, and those who come to it."""

    def __init__(self, capacity: int, policy: WaitPolicy | None = None) -> None:
        self.metrics = Metrics()
        self.gate = AdmissionGate(capacity, self.metrics.admitted, self.metrics.rejected.labels("overloaded"), policy)
        self.order: list[str] = []

    async def patient(self, name: str, leave: asyncio.Event, urgency: int = 6, within_s: float = 60) -> None:
        async with self.gate.admit_queued(urgency, within_s):
            self.order.append(name)
            await leave.wait()


def run(scene: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(10):
            await scene()

    asyncio.run(bounded())


async def let_others_run() -> None:
    for _ in range(4):
        await asyncio.sleep(0)


async def test_the_line_is_fair_and_the_more_urgent_first() -> None:
    async with asyncio.timeout(10):
        here = Scene(2)
        leave = asyncio.Event()
        leave.set()
        async with here.gate.admit():
            people = [("late", 7), ("first", 6), ("second", 6)]
            tasks = [asyncio.create_task(here.patient(name, leave, urgency)) for name, urgency in people]
            await let_others_run()
            assert here.order == []
        await asyncio.gather(*tasks)
        assert here.order == ["first", "second", "late"]
        # Nobody was turned away, and nobody is left inside.
        assert sample(here.metrics, "maskloop_segment_rejected_total", reason="overloaded") == 0
        assert sample(here.metrics, "maskloop_segment_admitted") == here.gate.in_progress == 0


async def test_half_of_the_places_are_left_to_those_who_do_not_wait() -> None:
    async with asyncio.timeout(10):
        here, leave = Scene(4), asyncio.Event()
        tasks = [asyncio.create_task(here.patient(str(number), leave)) for number in range(6)]
        await let_others_run()
        assert here.gate.in_progress == 2
        async with here.gate.admit(), here.gate.admit():
            with pytest.raises(Overloaded, match="MASKLOOP_MAX_CONCURRENT_REQUESTS"):
                await here.gate.admit().__aenter__()
        leave.set()
        await asyncio.gather(*tasks)
        assert here.order == [str(number) for number in range(6)]


async def test_those_of_the_line_make_nobody_wait_longer() -> None:
    """A second for each that is ahead, where one and a half may be waited for: behind one, not behind two."""
    policy = WaitPolicy(estimate_s=lambda ahead: 1.0 * ahead, max_wait_s=1.5, unlimited_requests=0)

    async with asyncio.timeout(10):
        here, leave = Scene(20, policy), asyncio.Event()
        tasks = [asyncio.create_task(here.patient(str(number), leave)) for number in range(10)]
        await let_others_run()
        assert here.gate.in_progress == 10
        async with here.gate.admit(), here.gate.admit():
            with pytest.raises(Overloaded, match="MASKLOOP_MAX_WAIT_S"):
                await here.gate.admit().__aenter__()
        leave.set()
        await asyncio.gather(*tasks)


async def test_who_knocks_is_told_what_who_enters_is_and_takes_no_place() -> None:
    policy = WaitPolicy(estimate_s=lambda ahead: 1.0 * ahead, max_wait_s=2.5, unlimited_requests=1)

    async with asyncio.timeout(10):
        here, full = Scene(5, policy), Scene(1)
        assert here.gate.check() is None
        async with here.gate.admit(), here.gate.admit(), here.gate.admit() as longest_s:
            assert longest_s == 2.5
            with pytest.raises(Overloaded, match="MASKLOOP_MAX_WAIT_S"):
                here.gate.check()
            assert here.gate.in_progress == 3
        async with full.gate.admit():
            with pytest.raises(Overloaded, match="MASKLOOP_MAX_CONCURRENT_REQUESTS"):
                full.gate.check()
        assert sample(full.metrics, "maskloop_segment_rejected_total", reason="overloaded") == 1


async def test_whose_turn_does_not_come_is_told_so_once() -> None:
    async with asyncio.timeout(10):
        here = Scene(1)
        async with here.gate.admit():
            with pytest.raises(Overloaded):
                await here.patient("late", asyncio.Event(), within_s=0.05)
        assert sample(here.metrics, "maskloop_segment_rejected_total", reason="overloaded") == 1
        async with here.gate.admit_queued(6, 1):
            assert here.gate.in_progress == 1


class Crowd:
    """Some inside, some in the line, who come and go in any order."""

    def __init__(self) -> None:
        self.scene = Scene(4)
        self._inside: list[AsyncExitStack] = []
        self._line: list[tuple[asyncio.Task[None], asyncio.Event]] = []

    async def come(self, _: int) -> None:
        stack = AsyncExitStack()
        try:
            await stack.enter_async_context(self.scene.gate.admit())
            self._inside.append(stack)
        except Overloaded:
            assert self.scene.gate.in_progress == 4

    async def queue(self, _: int) -> None:
        leave = asyncio.Event()
        self._line.append((asyncio.create_task(self.scene.patient("one", leave)), leave))

    async def go(self, which: int) -> None:
        if self._inside:
            await self._inside.pop(which % len(self._inside)).aclose()

    async def go_from_the_line(self, which: int) -> None:
        if self._line:
            self._line[which % len(self._line)][1].set()

    async def give_up(self, which: int) -> None:
        if self._line:
            self._line[which % len(self._line)][0].cancel()

    async def all_go(self) -> None:
        while self._inside:
            await self.go(0)
        for _, leave in self._line:
            leave.set()
        await asyncio.gather(*(task for task, _ in self._line), return_exceptions=True)


STEPS = [Crowd.come, Crowd.queue, Crowd.go, Crowd.go_from_the_line, Crowd.give_up]


@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 9), st.booleans()), max_size=40))
def test_places_are_never_more_than_there_are_and_all_come_back(
    steps: list[tuple[Callable[[Crowd, int], Awaitable[None]], int, bool]],
) -> None:
    async def scene() -> None:
        crowd = Crowd()
        for step, which, others_run in steps:
            await step(crowd, which)
            if others_run:
                await let_others_run()
            assert 0 <= crowd.scene.gate.in_progress <= 4
        await crowd.all_go()
        assert crowd.scene.gate.in_progress == sample(crowd.scene.metrics, "maskloop_segment_admitted") == 0

    run(scene)
