"""Rounds: start all servers, put each load on them in turn, stop them.

Only one server runs at a time; the others are paused. The order changes from turn to turn, and raw onnxruntime is
measured in turn with the servers under each closed load, so that changes of the machine's speed affect all equally.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from http.client import HTTPException
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.benchmarks.serving.client import Client
from tests.benchmarks.serving.limit import Best, Limit
from tests.benchmarks.serving.photographs import read_mask
from tests.benchmarks.serving.server_process import ServerProcess
from tests.benchmarks.serving.servers import SERVERS, Launch, ServerError
from tests.benchmarks.serving.windows import CLOSED, LOADS, Load, Measurement, Window, median_latency_ms
from tests.contract.conftest import free_port

LIMIT = "limit"
MIN_AGREEMENT, MIN_AGREEMENT_AUTO = 0.9, 0.85
"""Minimum fraction of equal pixels between a server's mask and raw onnxruntime's, for the worst photograph. The model
was not trained for these photographs, and another graph such as int8 changes many of their near-ties."""


@dataclass(kw_only=True, slots=True)
class Results:
    """All measurements. Lists of a load have one entry per turn, other lists one per round."""

    best: Best
    limit: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """By closed load: `infer` and `whole`, each with masks_per_s, p50_ms and steps_ms."""
    windows: dict[str, dict[str, list[Window]]] = field(default_factory=dict)
    """By server and load."""
    agreement: dict[str, float] = field(default_factory=dict)
    """By server: fraction of equal pixels in the mask that differs most from the limit's."""
    warm_bytes: dict[str, list[int]] = field(default_factory=dict)
    """By server: resident memory after the warm-up."""
    ready_s: dict[str, list[float]] = field(default_factory=dict)
    """By server: seconds from start to ready."""
    processes: dict[str, int] = field(default_factory=dict)
    """By server: number of processes."""
    failed: dict[str, str] = field(default_factory=dict)
    """By server: the reason why it was not measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Parameters of a benchmark run."""

    servers: tuple[str, ...]
    rounds: int
    seconds: float
    timeout_s: float
    bundle: Path
    cores: int
    settings: dict[str, str]
    folder: Path
    photographs: Path
    before: Path | None = None
    """Checkout of an earlier build, for the server `before`."""

    @property
    def steps(self) -> int:
        """How often `Rounds` calls its `progress` function."""
        turns = sum(load.turns * (len(self.servers) + (load in CLOSED)) for load in LOADS)
        return 1 + self.rounds * (len(self.servers) + turns)

    def launch(self, name: str) -> Launch:
        """Return launch parameters with a free port and a new folder."""
        folder = self.folder / f"{name}-{len(list(self.folder.iterdir()))}"
        folder.mkdir()
        return Launch(
            port=free_port(),
            folder=folder,
            bundle=self.bundle,
            cores=self.cores,
            settings=self.settings,
            before=self.before,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Starts:
    """Median seconds from the start of our process until it is ready."""

    first_s: float
    """With an empty data folder."""
    again_s: float
    """With an existing data folder."""


def measure_starts(plan: Plan, count: int, progress: Callable[[str], None]) -> Starts:
    """Start our service `count` times with each kind of data folder. Raises ServerError."""
    first: list[float] = []
    again: list[float] = []
    for number in range(count):
        progress(f"start to ready {number + 1} of {count}")
        launch = plan.launch("start")
        for times in (first, again):
            with ServerProcess(SERVERS["ours"], replace(launch, port=free_port())) as server:
                times.append(server.ready_s)
    return Starts(first_s=median(first), again_s=median(again))


def schedule(load: Load, round_: int, servers: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Yield turn and name in order of measurement. Turns are numbered over all rounds and seed the arrival times.

    Each turn begins with another server.
    """
    names = (LIMIT, *servers) if load.clients else servers
    for turn in range(round_ * load.turns, (round_ + 1) * load.turns):
        first = turn % max(1, len(names))
        yield from ((turn, name) for name in names[first:] + names[:first])


class Rounds:
    """The measurement of all rounds."""

    def __init__(self, plan: Plan, limit: Limit, client: Client, progress: Callable[[str], None]) -> None:
        """Args: `progress` is called with a description of each step when it begins."""
        self._plan, self._limit, self._progress = plan, limit, progress
        self._measurement = Measurement(client=client, seconds=plan.seconds, timeout_s=plan.timeout_s)
        self._masks_NHW: npt.NDArray[np.uint8] = limit.masks(plan.folder / "masks.npy")

    def run(self) -> Results:
        """Run all rounds."""
        self._progress("limit: trying settings")
        results = Results(best=self._limit.find_best(self._plan.seconds / 2))
        for round_ in range(self._plan.rounds):
            with ExitStack() as stack:
                self._run_round(round_, results, stack)
        return results

    def _run_round(self, round_: int, results: Results, stack: ExitStack) -> None:
        servers: dict[str, ServerProcess] = {}
        for name in self._plan.servers:
            if name not in results.failed and (server := self._start(name, results, stack)):
                servers[name] = server
        for load in LOADS:
            for turn, name in schedule(load, round_, tuple(servers)):
                position = f"round {round_ + 1}, {load.name}, turn {turn + 1}"
                if name == LIMIT:
                    self._progress(f"{position}: limit")
                    results.limit.setdefault(load.name, []).append(self._measure_limit(load, results.best))
                else:
                    self._progress(f"{position}: {servers[name].spec.title}")
                    servers[name].resume()
                    self._measure(load, name, servers[name], results, seed=turn)
                    servers[name].pause()

    def _start(self, name: str, results: Results, stack: ExitStack) -> ServerProcess | None:
        """Start a server, check its masks, warm it up and pause it; return None if that fails."""
        self._progress(f"start: {SERVERS[name].title}")
        try:
            server = stack.enter_context(ServerProcess(SERVERS[name], self._plan.launch(name)))
            if name not in results.agreement:
                results.agreement[name] = self._agreement(server)
        except (ServerError, OSError, HTTPException) as error:
            results.failed[name] = str(error) if isinstance(error, ServerError) else repr(error)
            return None
        self._measurement.warm_up(server, self._plan.seconds)
        results.ready_s.setdefault(name, []).append(server.ready_s)
        results.warm_bytes.setdefault(name, []).append(server.memory_bytes)
        results.processes[name] = server.processes
        server.pause()
        return server

    def _agreement(self, server: ServerProcess) -> float:
        """Return the lowest agreement of a server's masks with the limit's. Raises ServerError if it is too low."""
        shares = []
        for file, mask_HW in zip(sorted(self._plan.photographs.iterdir()), self._masks_NHW, strict=True):
            response = server.segment(file.read_bytes())
            if response.status != 200:
                raise ServerError(f"it returned {response.status}: {response.body[:300].decode(errors='replace')}")
            shares.append(float(np.mean(read_mask(response.png) == mask_HW)))
        if min(shares) < (MIN_AGREEMENT_AUTO if server.spec == SERVERS["ours-auto"] else MIN_AGREEMENT):
            raise ServerError(f"its masks differ: only {min(shares):.1%} of the pixels equal raw onnxruntime's")
        return min(shares)

    def _measure_limit(self, load: Load, best: Best) -> dict[str, Any]:
        if load.clients == 1:
            return {"whole": self._limit.measure(best.single, self._plan.seconds, whole=True)}
        return {
            "infer": self._limit.measure(best.infer, self._plan.seconds, whole=False),
            "whole": self._limit.measure(best.whole, self._plan.seconds, whole=True),
        }

    def _measure(self, load: Load, name: str, server: ServerProcess, results: Results, *, seed: int) -> None:
        windows = results.windows.setdefault(name, {})
        # The closed loads of this round were measured before; they give the server's capacity.
        closed = [windows[each.name][-each.turns :] for each in CLOSED if windows.get(each.name)]
        capacity = max((_median_rate(turns) for turns in closed), default=1.0)
        usual_ms = median(map(median_latency_ms, closed[0])) if closed else float("inf")
        window = self._measurement.window(server, load, capacity_per_s=capacity or 1.0, seed=seed, usual_ms=usual_ms)
        windows.setdefault(load.name, []).append(window)


def _median_rate(windows: list[Window]) -> float:
    return median(window.figures.masks_per_s for window in windows)
