"""Images of one size that go through a GPU together.

An image waits for others only while it would wait anyway, for its turn, and `delay_s` beyond that if told to. A CPU has
nothing to gain here: it computes image by image.
"""

# H W pixels

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from service.segmentation.admission.request_context import RequestContext
from service.segmentation.inference.predictor import Pixels, Prediction, Predictor

Run = Callable[[Predictor, int, Callable[[], list[Pixels]]], Awaitable[list[Prediction]]]
"""Wait for a turn of an engine, by urgency; then ask for the images and run them."""

Key = tuple[int, int, int, int]
"""The engine's id, height, width, urgency: what images have in common that go together."""


@dataclass(slots=True)
class _Member:
    image_HW3: Pixels
    visit: RequestContext
    answer: asyncio.Future[Prediction]
    patience: asyncio.Timeout
    since: float


@dataclass(slots=True)
class _Gathering:
    """A batch that has not begun."""

    members: list[_Member] = field(default_factory=list)
    full: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class MicroBatcher:
    """Belongs to one event loop.

    Args:
        run: What runs a batch when its turn has come.
        delay_s: How long a batch waits to fill before it asks for a turn.
    """

    def __init__(self, run: Run, delay_s: float) -> None:
        self._run = run
        self._delay_s = delay_s
        self._gathering: dict[Key, _Gathering] = {}

    async def predict(
        self, image_HW3: Pixels, engine: Predictor, visit: RequestContext, *, waited_s: float = 0.0
    ) -> Prediction:
        """Run an image with whichever others of its size and urgency come before its turn.

        Args:
            image_HW3: uint8 [H, W, 3], RGB.
            engine: Who answers.
            visit: Gets `queue` and `infer`; says how long the image may wait for its turn.
            waited_s: What it has waited already.

        Raises:
            TimeoutError: Its turn did not come in that time.
            Others as the engine's `run_batch`.
        """
        longest_s = visit.max_wait_s
        async with asyncio.timeout(None if longest_s is None else longest_s - waited_s) as patience:
            answer: asyncio.Future[Prediction] = asyncio.get_running_loop().create_future()
            since = time.perf_counter() - waited_s
            self._join(_Member(image_HW3, visit, answer, patience, since), engine)
            return await answer

    def _join(self, member: _Member, engine: Predictor) -> None:
        height, width = member.image_HW3.shape[:2]
        key = (id(engine), height, width, member.visit.urgency)
        gathering = self._gathering.get(key)
        if gathering is None:
            gathering = self._gathering[key] = _Gathering()
            gathering.task = asyncio.create_task(self._see_through(key, gathering, engine))
        gathering.members.append(member)
        if len(gathering.members) >= engine.plan(height, width).max_batch:
            # The next one begins another.
            gathering.full.set()
            self._close(key, gathering)

    def _close(self, key: Key, gathering: _Gathering) -> None:
        if self._gathering.get(key) is gathering:
            del self._gathering[key]

    async def _see_through(self, key: Key, gathering: _Gathering, engine: Predictor) -> None:
        """From its first member to the answers."""
        await self._fill(gathering)
        begun: list[_Member] = []

        def images() -> list[Pixels]:
            """Of those who still wait, now that the turn has come."""
            self._close(key, gathering)
            begun.extend(member for member in gathering.members if not member.answer.done())
            for member in begun:
                member.patience.reschedule(None)
                member.visit.batch = len(begun)
                member.visit.record_stage("queue", time.perf_counter() - member.since)
                member.since = time.perf_counter()
            return [member.image_HW3 for member in begun]

        try:
            predictions = await self._run(engine, key[-1], images)
        except Exception as error:
            self._close(key, gathering)
            for member in gathering.members:
                if not member.answer.done():
                    member.answer.set_exception(error)
            return
        for member, prediction in zip(begun, predictions, strict=True):
            member.visit.record_stage("infer", time.perf_counter() - member.since)
            if not member.answer.done():
                member.answer.set_result(prediction)

    async def _fill(self, gathering: _Gathering) -> None:
        if self._delay_s:
            try:
                async with asyncio.timeout(self._delay_s):
                    await gathering.full.wait()
            except TimeoutError:
                return
