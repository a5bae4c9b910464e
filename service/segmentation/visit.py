"""A request on its way through the service: how urgent it is, and how long each stage took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from service.metrics import Metrics

INTERACTIVE, BATCH = 3, 6
"""Urgencies of RFC 9218: 0 to 7, lower goes first; 3 is that of who says nothing."""


@dataclass(slots=True)
class Visit:
    """What is known of a request.

    Attributes:
        metrics: Where its stages are counted.
        urgency: 0 to 7, lower goes first.
        seconds: By stage, in the order of the stages.
    """

    metrics: Metrics
    urgency: int = INTERACTIVE
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str, *, already_s: float = 0.0) -> Iterator[None]:
        """Measure one stage, of which so much is over already."""
        begin = time.perf_counter() - already_s
        yield
        self.took(name, time.perf_counter() - begin)

    def took(self, name: str, seconds: float) -> None:
        """Write down how long a stage took."""
        self.seconds[name] = seconds
        self.metrics.stage_seconds.labels(name).observe(seconds)

    def header(self) -> str:
        """As a `Server-Timing` header: milliseconds."""
        return ", ".join(f"{name};dur={seconds * 1000:.2f}" for name, seconds in self.seconds.items())
