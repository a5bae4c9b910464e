"""One load on one server, for a window of time, and everything that is read off meanwhile."""

import time
from dataclasses import dataclass
from statistics import median

from tests.benchmarks.serving.client import Client, Job
from tests.benchmarks.serving.figures import Figures, figures, server_timing
from tests.benchmarks.serving.loads import OK
from tests.benchmarks.serving.processes import busy_seconds
from tests.benchmarks.serving.servers import Server

# How long it is awaited that a server is back to normal after an overload, and what counts as normal.
LONGEST_RECOVERY_S = 15.0
NORMAL = 1.5
# Of the capacity, where requests come by chance: up to there hardly any waits for another.
NO_QUEUE = 0.5
# In a round, of the loads whose figures are compared with the limit or with those of peers.
TURNS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """A load by its name: clients in a closed loop, or a multiple of a side's own capacity in an open one.

    It is put on each side in turns, several in a round: the machine changes its speed from second to second, and side
    by side the more, the shorter a turn is.
    """

    name: str
    clients: int = 0
    times_capacity: float = 0.0
    turns: int = 1

    def run_in_s(self, patience_s: float) -> float:
        """What is not counted: until the queue is about as long as it will be, or the longest wait is the clients'."""
        if self.clients:
            return 0.5 + self.clients / 16
        return patience_s if self.times_capacity > NO_QUEUE else 1.0


CLOSED = tuple(
    Load(name=f"{clients} client{'s' * (clients > 1)}", clients=clients, turns=TURNS) for clients in (1, 8, 32)
)
OPEN = tuple(
    Load(name=f"{times:g}x", times_capacity=times, turns=turns)
    for times, turns in {0.5: 1, 0.8: TURNS, 2.0: 1, 5.0: 1}.items()
)
LOADS = CLOSED + OPEN
"""In the order in which they come: what may leave a server with a backlog stands last."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """What one window showed."""

    figures: Figures
    timing_ms: dict[str, float]
    """Medians by the server's own clock, where it tells."""
    memory_bytes: int
    """Of the side, after it."""
    side_cores: float
    """Cores that the side kept busy."""
    client_cores: float
    other_cores: float
    """Cores that programs kept busy which have no part in this: on a quiet machine near none."""
    recovery_s: float | None = None
    """After an overload: until a lone client is served as ever. Not a number: not in the time given."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Watch:
    """How windows are run."""

    client: Client
    seconds: float
    """What is counted of each."""
    patience_s: float

    def window(self, server: Server, load: Load, *, capacity_per_s: float, seed: int, lone_ms: float) -> Window:
        """Put a load on a server.

        Args:
            server: Awake; the others are not.
            load: Which.
            capacity_per_s: The side's own, for open loads.
            seed: Of the arrivals.
            lone_ms: What a lone client waits for this side, by which its recovery is judged.
        """
        run_in_s = load.run_in_s(self.patience_s)
        job = self._job(server, run_in_s + self.seconds, load.clients, load.times_capacity * capacity_per_s, seed)
        began, side_s, busy_s, own_s = time.perf_counter(), server.cpu_s, busy_seconds(), time.process_time()
        outcome = self.client.run(job)
        took_s = time.perf_counter() - began
        side_s, busy_s, own_s = server.cpu_s - side_s, busy_seconds() - busy_s, time.process_time() - own_s
        memory_bytes = server.memory_bytes
        late_s = outcome.took_s - job.seconds
        return Window(
            figures=figures(outcome.samples, run_in_s, job.seconds, closed=bool(load.clients)),
            timing_ms=server_timing([sample for sample in outcome.samples if sample.outcome == OK]),
            memory_bytes=memory_bytes,
            side_cores=side_s / took_s,
            client_cores=outcome.cpu_s / took_s,
            other_cores=max(0.0, busy_s - side_s - own_s - outcome.cpu_s) / took_s,
            recovery_s=self._recovery_s(server, lone_ms) + late_s if load.times_capacity > 1 else None,
        )

    def warm_up(self, server: Server, seconds: float) -> None:
        """One client and then eight, so that every path has been gone."""
        for clients in (1, 8):
            self.client.run(self._job(server, seconds, clients, 0.0, 0))

    def _recovery_s(self, server: Server, lone_ms: float) -> float:
        job = self._job(server, LONGEST_RECOVERY_S, 1, 0.0, 0, stop_below_s=NORMAL * lone_ms / 1000)
        samples = self.client.run(job).samples
        last = max(samples, key=lambda sample: sample.done_s)
        back = last.outcome == OK and last.latency_s < job.stop_below_s
        return last.done_s if back else float("nan")

    def _job(
        self, server: Server, seconds: float, clients: int, rate_per_s: float, seed: int, *, stop_below_s: float = 0.0
    ) -> Job:
        return Job(
            port=server.place.port,
            path=server.side.path,
            headers=server.side.headers,
            seconds=seconds,
            patience_s=self.patience_s,
            clients=clients,
            rate_per_s=rate_per_s,
            seed=seed,
            stop_below_s=stop_below_s,
        )


def lone_ms(window: Window) -> float:
    """What a lone client waited, the median."""
    return median(window.figures.latencies_ms) if window.figures.latencies_ms else float("inf")
