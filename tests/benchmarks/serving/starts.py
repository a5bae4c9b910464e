"""From the start of our process to its first "ready": in an empty data folder, and in one that it knows."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median

from tests.benchmarks.serving.rounds import Plan
from tests.benchmarks.serving.servers import Server, free_port
from tests.benchmarks.serving.sides import SIDES


@dataclass(frozen=True, kw_only=True, slots=True)
class Starts:
    """Medians, in seconds."""

    first_s: float
    again_s: float


def measure_starts(plan: Plan, count: int, say: Callable[[str], None]) -> Starts:
    """Start our service so often. Raises SideFailed."""
    first: list[float] = []
    again: list[float] = []
    for number in range(count):
        say(f"start to ready {number + 1} of {count}")
        place = plan.place("start")
        for times in (first, again):
            with Server(SIDES["ours"], replace(place, port=free_port())) as server:
                times.append(server.ready_s)
    return Starts(first_s=median(first), again_s=median(again))
