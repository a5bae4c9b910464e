"""Rates, percentiles and outcome counts of the requests in a measurement window, and medians over windows."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from tests.benchmarks.serving.loads import OK, TIMED_OUT, Sample

PERCENTILES = (50, 95, 99)


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """Results of one window of one server."""

    offered_per_s: float
    """Requests that were due in the window, per second."""
    masks_per_s: float
    """Masks that arrived in the window before the client's timeout, per second."""
    latencies_ms: list[float]
    """Latencies of accepted requests, from the time at which each was due. A request that timed out counts with its
    timeout: otherwise a server would look faster the more clients it loses."""
    outcomes: dict[str, int]
    """Number of requests by outcome."""


def figures(samples: Sequence[Sample], begin_s: float, end_s: float, *, closed: bool) -> Figures:
    """Compute the figures of a window.

    A closed loop counts the requests that ended in the window. An open loop counts those that were due in it, because
    the slowest end long after it.
    """
    ended = [sample for sample in samples if begin_s <= sample.done_s < end_s]
    due = [sample for sample in samples if begin_s <= sample.due_s < end_s]
    counted = ended if closed else due
    accepted = [sample for sample in counted if sample.outcome in (OK, TIMED_OUT)]
    return Figures(
        offered_per_s=len(due) / (end_s - begin_s),
        masks_per_s=sum(sample.outcome == OK for sample in ended) / (end_s - begin_s),
        latencies_ms=sorted(1000 * sample.latency_s for sample in accepted),
        outcomes=dict(Counter(sample.outcome for sample in counted).most_common()),
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """Return a linearly interpolated percentile; NaN if there are no values."""
    return float(np.percentile(values, percent)) if values else float("nan")


def pooled(windows: Sequence[Figures]) -> dict[str, float]:
    """Return p50, p95 and p99 over the requests of all windows: one window has too few for the tail."""
    values = [value for window in windows for value in window.latencies_ms]
    return {f"p{percent}_ms": percentile(values, percent) for percent in PERCENTILES}


def all_outcomes(windows: Sequence[Figures]) -> dict[str, int]:
    """Sum the outcome counts of all windows."""
    counter: Counter[str] = Counter()
    for window in windows:
        counter.update(window.outcomes)
    return dict(counter.most_common())


def median_ratio(values: Sequence[float], limits: Sequence[float]) -> float:
    """Return the median of value / limit, paired by turn: both drift with the machine's speed."""
    return median(value / limit for value, limit in zip(values, limits, strict=True))


def server_timing(samples: Sequence[Sample]) -> dict[str, float]:
    """Return the median of each entry of the Server-Timing headers, in milliseconds."""
    return {name: median(values) for name, values in timing_entries(samples).items()}


def timing_entries(samples: Sequence[Sample]) -> dict[str, list[float]]:
    """Parse the Server-Timing headers: milliseconds by entry name."""
    found: dict[str, list[float]] = {}
    for sample in samples:
        for entry in filter(None, sample.timing.split(",")):
            name, _, value = entry.strip().partition(";dur=")
            if value:
                found.setdefault(name, []).append(float(value))
    return found
