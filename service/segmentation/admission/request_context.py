"""A request on its way through the service: how urgent it is, and how long each stage took."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from service.metrics import Metrics
from service.tracing import Trace, current_trace

INTERACTIVE, BATCH = 3, 6
"""Urgencies of RFC 9218: 0 to 7, lower goes first; 3 is that of who says nothing."""
LEAST_URGENT = 7
LONGEST_S = 86_400.0
"""No timer is set for later than that."""


@dataclass(slots=True)
class RequestContext:
    """What is known of a request.

    Attributes:
        metrics: Where its stages are counted.
        urgency: 0 to 7, lower goes first.
        model: The version that answers it, for the metrics.
        seconds: By stage, in the order of the stages.
        timeout_s: How long the answer is of use; None: for ever.
        max_wait_s: How long it may wait for its turns; None: any time.
        batch: How many images went through the model together, this one among them.
        trace: The trace of the request, which every stage is a part of; None: it is not traced.
    """

    metrics: Metrics
    urgency: int = INTERACTIVE
    model: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    trace: Trace | None = field(default_factory=current_trace)
    timeout_s: float | None = field(default=None, init=False)
    max_wait_s: float | None = field(default=None, init=False)
    batch: int = field(default=1, init=False)
    _deadline: asyncio.Timeout | None = None

    def __post_init__(self) -> None:
        if self.trace is not None:
            self.trace.set_attributes({"maskloop.model.version": self.model})

    def set_deadline(self, timeout_s: float) -> None:
        """Give the visit so much time from now; it ends with DeadlinePassed then. Once, by who was admitted."""
        self.timeout_s = timeout_s
        if self._deadline is not None:
            self._deadline.reschedule(asyncio.get_running_loop().time() + min(timeout_s, LONGEST_S))

    @contextmanager
    def stage(self, name: str, *, already_s: float = 0.0) -> Iterator[None]:
        """Measure one stage, of which so much is over already."""
        begin = time.perf_counter() - already_s
        try:
            yield
        except BaseException as error:
            if self.trace is not None:
                self.trace.add_span(name, time.perf_counter() - begin, error)
            raise
        self.record_stage(name, time.perf_counter() - begin)

    def record_stage(self, name: str, seconds: float) -> None:
        """Write down how long a stage took."""
        self.seconds[name] = seconds
        self.metrics.stage_seconds.labels(name, self.model).observe(seconds)
        if self.trace is not None:
            self.trace.add_span(name, seconds)

    def server_timing(self) -> str:
        """As a `Server-Timing` header: milliseconds."""
        return ", ".join(f"{name};dur={seconds * 1000:.2f}" for name, seconds in self.seconds.items())
