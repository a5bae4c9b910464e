"""Put one load on one server for a measurement window and record latency, memory and CPU use."""

import time
from dataclasses import dataclass
from statistics import median

from tests.benchmarks.serving.client import Client, Job
from tests.benchmarks.serving.figures import Figures, figures, server_timing
from tests.benchmarks.serving.loads import OK
from tests.benchmarks.serving.processes import busy_seconds
from tests.benchmarks.serving.server_process import ServerProcess

MAX_RECOVERY_S = 15.0
"""How long the benchmark waits for a server to recover from an overload."""
RECOVERED = 1.5
"""A server has recovered when a single client's latency is below this multiple of its usual latency."""
NO_QUEUE = 0.5
"""Fraction of the capacity up to which requests of an open loop hardly queue."""
TURNS = 3
"""Windows per round of the loads that are compared with the limit or between servers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """A closed loop of clients, or an open loop at a multiple of the server's own capacity.

    A round may have several turns of a load. The machine's speed varies within seconds, and short alternating turns
    distribute that over all servers.
    """

    name: str
    clients: int = 0
    times_capacity: float = 0.0
    turns: int = 1

    def warm_up_s(self, timeout_s: float) -> float:
        """Return the seconds that are not counted, after which the queue, or the wait at the timeout, is steady."""
        if self.clients:
            return 0.5 + self.clients / 16
        return timeout_s if self.times_capacity > NO_QUEUE else 1.0


CLOSED = tuple(
    Load(name=f"{clients} client{'s' * (clients > 1)}", clients=clients, turns=TURNS) for clients in (1, 8, 32)
)
OPEN = tuple(
    Load(name=f"{times:g}x", times_capacity=times, turns=turns)
    for times, turns in {0.5: 1, 0.8: TURNS, 2.0: 1, 5.0: 1}.items()
)
LOADS = CLOSED + OPEN
"""In the order of measurement: loads that may leave a backlog come last."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """Results of one window."""

    figures: Figures
    timing_ms: dict[str, float]
    """Medians of the Server-Timing entries, if the server sends them."""
    memory_bytes: int
    """Resident memory of the server after the window."""
    server_cores: float
    """Cores that the server used on average."""
    client_cores: float
    """Cores that the client used."""
    other_cores: float
    """Cores that unrelated programs used; almost zero on a quiet machine."""
    recovery_s: float | None = None
    """After an overload: seconds until the server recovered; NaN: not within MAX_RECOVERY_S."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """Parameters that all windows share."""

    client: Client
    seconds: float
    """Counted duration of a window."""
    timeout_s: float
    """Timeout of the clients."""

    def window(self, server: ServerProcess, load: Load, *, capacity_per_s: float, seed: int, usual_ms: float) -> Window:
        """Put a load on a server.

        Args:
            server: The running server; the others are paused.
            load: The load.
            capacity_per_s: The server's own capacity, for open loops.
            seed: Seed of the arrival times.
            usual_ms: The server's median latency for a single client, for the recovery.
        """
        warm_up_s = load.warm_up_s(self.timeout_s)
        job = self._job(server, warm_up_s + self.seconds, load.clients, load.times_capacity * capacity_per_s, seed)
        start, server_s, busy_s, own_s = time.perf_counter(), server.cpu_s, busy_seconds(), time.process_time()
        outcome = self.client.run(job)
        took_s = time.perf_counter() - start
        server_s, busy_s, own_s = server.cpu_s - server_s, busy_seconds() - busy_s, time.process_time() - own_s
        memory_bytes = server.memory_bytes
        late_s = outcome.took_s - job.seconds
        return Window(
            figures=figures(outcome.samples, warm_up_s, job.seconds, closed=bool(load.clients)),
            timing_ms=server_timing([sample for sample in outcome.samples if sample.outcome == OK]),
            memory_bytes=memory_bytes,
            server_cores=server_s / took_s,
            client_cores=outcome.cpu_s / took_s,
            other_cores=max(0.0, busy_s - server_s - own_s - outcome.cpu_s) / took_s,
            recovery_s=self._recovery_s(server, usual_ms) + late_s if load.times_capacity > 1 else None,
        )

    def warm_up(self, server: ServerProcess, seconds: float) -> None:
        """Send requests of one client and then of eight, so that all code paths have run once."""
        for clients in (1, 8):
            self.client.run(self._job(server, seconds, clients, 0.0, 0))

    def _recovery_s(self, server: ServerProcess, usual_ms: float) -> float:
        job = self._job(server, MAX_RECOVERY_S, 1, 0.0, 0, stop_below_s=RECOVERED * usual_ms / 1000)
        samples = self.client.run(job).samples
        last = max(samples, key=lambda sample: sample.done_s)
        recovered = last.outcome == OK and last.latency_s < job.stop_below_s
        return last.done_s if recovered else float("nan")

    def _job(
        self,
        server: ServerProcess,
        seconds: float,
        clients: int,
        rate_per_s: float,
        seed: int,
        *,
        stop_below_s: float = 0.0,
    ) -> Job:
        return Job(
            port=server.launch.port,
            path=server.spec.path,
            headers=server.spec.headers,
            seconds=seconds,
            timeout_s=self.timeout_s,
            clients=clients,
            rate_per_s=rate_per_s,
            seed=seed,
            stop_below_s=stop_below_s,
        )


def median_latency_ms(window: Window) -> float:
    """Return the median latency; infinity if no request was accepted."""
    return median(window.figures.latencies_ms) if window.figures.latencies_ms else float("inf")
