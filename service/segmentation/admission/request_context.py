"""State of a request in progress: urgency, deadline, wait limit and stage durations."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from service.metrics import Metrics
from service.tracing import Trace, current_trace

INTERACTIVE, BATCH = 3, 6
"""Urgency by RFC 9218: 0 to 7, lower goes first; 3 is the default."""
LEAST_URGENT = 7
LONGEST_TIMER_S = 86_400.0
"""Longest timer that is set; later deadlines count as this."""


@dataclass(slots=True)
class RequestContext:
    """State of one request; `trace` is the parent of the spans of its stages."""

    metrics: Metrics
    urgency: int = INTERACTIVE
    model: str = ""
    """Version of the model, for the metrics."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Duration by stage, in order."""
    trace: Trace | None = field(default_factory=current_trace)
    timeout_s: float | None = field(default=None, init=False)
    """Seconds after which the client no longer needs the answer; None: no deadline."""
    max_wait_s: float | None = field(default=None, init=False)
    """Longest time in queues; None: no limit."""
    batch: int = field(default=1, init=False)
    """Number of images in the batch that contained this one."""
    _deadline: asyncio.Timeout | None = None

    def __post_init__(self) -> None:
        self.set_model(self.model)

    def set_model(self, version: str) -> None:
        """Set the version of the model, also in the trace."""
        self.model = version
        if self.trace is not None:
            self.trace.span.set_attributes({"maskloop.model.version": self.model})

    def set_deadline(self, timeout_s: float) -> None:
        """End the request with DeadlinePassed in `timeout_s` seconds. Only for admitted requests."""
        self.timeout_s = timeout_s
        if self._deadline is not None:
            self._deadline.reschedule(asyncio.get_running_loop().time() + min(timeout_s, LONGEST_TIMER_S))

    @contextmanager
    def stage(self, name: str, *, elapsed_s: float = 0.0) -> Iterator[None]:
        """Measure the block as one stage, which began `elapsed_s` seconds ago."""
        begin = time.perf_counter() - elapsed_s
        try:
            yield
        except BaseException as error:
            if self.trace is not None:
                self.trace.add_span(name, time.perf_counter() - begin, error)
            raise
        self.record_stage(name, time.perf_counter() - begin)

    def record_stage(self, name: str, seconds: float) -> None:
        """Record the duration of a stage."""
        self.seconds[name] = seconds
        self.metrics.stage_seconds.labels(name, self.model).observe(seconds)
        if self.trace is not None:
            self.trace.add_span(name, seconds)

    def server_timing(self) -> str:
        """Value of the `Server-Timing` header: milliseconds by stage."""
        return ", ".join(f"{name};dur={seconds * 1000:.2f}" for name, seconds in self.seconds.items())
