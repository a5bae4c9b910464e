"""What samples say: rates, percentiles, what became of the requests; and medians over turns."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from tests.benchmarks.serving.loads import GAVE_UP, OK, Sample

PERCENTILES = (50, 95, 99)


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """One window of one side."""

    offered_per_s: float
    """Requests that were due in it."""
    masks_per_s: float
    """Masks that arrived in it, from clients that still waited for them."""
    latencies_ms: list[float]
    """Of the requests that were accepted, from when they were due. One that was given up counts as long as it waited:
    otherwise a server would look the faster the more clients it loses."""
    outcomes: dict[str, int]
    """What became of the requests, counted."""


def figures(samples: Sequence[Sample], begin_s: float, end_s: float, *, closed: bool) -> Figures:
    """The figures of a window of a load.

    Of a closed loop the requests that ended in the window count, of an open one those that were due in it: there, the
    slowest have ended long after.
    """
    ended = [sample for sample in samples if begin_s <= sample.done_s < end_s]
    due = [sample for sample in samples if begin_s <= sample.due_s < end_s]
    counted = ended if closed else due
    accepted = [sample for sample in counted if sample.outcome in (OK, GAVE_UP)]
    return Figures(
        offered_per_s=len(due) / (end_s - begin_s),
        masks_per_s=sum(sample.outcome == OK for sample in ended) / (end_s - begin_s),
        latencies_ms=sorted(1000 * sample.latency_s for sample in accepted),
        outcomes=dict(Counter(sample.outcome for sample in counted).most_common()),
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """Between the two nearest values, in proportion; not a number where there are none."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def pooled(turns: Sequence[Figures]) -> dict[str, float]:
    """p50, p95, p99 over the requests of all turns: one alone has too few for the tail."""
    values = [value for each in turns for value in each.latencies_ms]
    return {f"p{percent}_ms": percentile(values, percent) for percent in PERCENTILES}


def all_outcomes(turns: Sequence[Figures]) -> dict[str, int]:
    """What became of the requests of all turns."""
    counter: Counter[str] = Counter()
    for each in turns:
        counter.update(each.outcomes)
    return dict(counter.most_common())


def median_ratio(values: Sequence[float], limits: Sequence[float]) -> float:
    """The median of a side's figures, each against the limit of its own turn: both drift with the machine."""
    return median(value / limit for value, limit in zip(values, limits, strict=True))


def server_timing(samples: Sequence[Sample]) -> dict[str, float]:
    """Medians of the entries of their Server-Timing headers, in milliseconds."""
    return {name: median(values) for name, values in timing_entries(samples).items()}


def timing_entries(samples: Sequence[Sample]) -> dict[str, list[float]]:
    """The entries of their Server-Timing headers, in milliseconds, by name."""
    found: dict[str, list[float]] = {}
    for sample in samples:
        for entry in filter(None, sample.timing.split(",")):
            name, _, value = entry.strip().partition(";dur=")
            if value:
                found.setdefault(name, []).append(float(value))
    return found
