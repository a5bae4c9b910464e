"""How long a run takes: seconds per step and per evaluation, measured while it runs."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from trainer.config import Train

WARM_UP = 2
"""First steps, which allocate memory and choose algorithms, and are not counted."""
RECENT = 0.9
"""Weight of the earlier steps in the moving average."""


class Pace:
    """Measures the steps and evaluations of a run, and estimates the time left."""

    def __init__(self, train: Train, clock: Callable[[], float] = time.monotonic) -> None:
        self._train, self._clock = train, clock
        self._steps, self._last = 0, clock()
        self._evaluation_s = 0.0
        self.seconds_per_step = 0.0
        """Moving average; 0 before it is measured."""

    def step(self) -> None:
        """Note that a step is complete."""
        now = self._clock()
        passed, self._last, self._steps = now - self._last, now, self._steps + 1
        if self._steps > WARM_UP:
            # A plain mean at first: the weight of the new value is 1, 1/2, 1/3, ...
            weight = max(1 - RECENT, 1 / (self._steps - WARM_UP))
            self.seconds_per_step += weight * (passed - self.seconds_per_step)

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """Measure an evaluation, which does not count as a step."""
        start = self._clock()
        yield
        self._last = self._clock()
        self._evaluation_s = self._last - start

    def seconds_left(self, step: int) -> float:
        """Time from completed step `step` to the end, in seconds; evaluations count once one was measured."""
        left = self._train.steps - step
        every = self._train.evaluate_every
        evaluations = left // every if every else 0
        return left * self.seconds_per_step + (evaluations + 1) * self._evaluation_s

    @property
    def due(self) -> bool:
        """Whether an estimate is due: after the first measured steps, then whenever ten times as many are."""
        measured = self._steps - WARM_UP
        return measured in {3, 30, 300, 3000}
