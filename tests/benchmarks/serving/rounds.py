"""Rounds: all sides are started, each load is put on one after the other, and all are ended.

Only one side is awake at a time. Their order changes from turn to turn, and the limit has its turn beside them under
each closed load, so that what the machine does meanwhile falls on all alike.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.benchmarks.serving.client import Client
from tests.benchmarks.serving.limit import Best, Limit
from tests.benchmarks.serving.photographs import read_mask
from tests.benchmarks.serving.servers import Server, free_port
from tests.benchmarks.serving.sides import SIDES, Place, SideFailed
from tests.benchmarks.serving.windows import CLOSED, LOADS, Load, Watch, Window, lone_ms

LIMIT = "limit"
LEAST_AGREEMENT, LEAST_OF_CHOICE = 0.9, 0.85
"""Below, a side does not answer the question that it was asked. Of the worst photograph: the pictures are nothing that
the model was trained for, and another graph, such as int8, names another class for many of their near-ties."""


@dataclass(kw_only=True, slots=True)
class Results:
    """All that was measured. Lists of a load have an entry a turn, others an entry a round."""

    best: Best
    limit: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """By closed load: `infer` and `whole` each with masks_per_s, p50_ms, steps_ms."""
    windows: dict[str, dict[str, list[Window]]] = field(default_factory=dict)
    """By side and load."""
    agreement: dict[str, float] = field(default_factory=dict)
    """By side: share of equal pixels in the mask that differs most from the limit's."""
    warm_bytes: dict[str, list[int]] = field(default_factory=dict)
    ready_s: dict[str, list[float]] = field(default_factory=dict)
    processes: dict[str, int] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    """By side: why it was not measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is to be measured, and with what."""

    sides: tuple[str, ...]
    rounds: int
    seconds: float
    patience_s: float
    bundle: Path
    cores: int
    settings: dict[str, str]
    folder: Path
    photographs: Path

    @property
    def steps(self) -> int:
        """How often `Rounds` says what it does."""
        turns = sum(load.turns * (len(self.sides) + (load in CLOSED)) for load in LOADS)
        return 1 + self.rounds * (len(self.sides) + turns)

    def place(self, name: str) -> Place:
        """A new port and a new folder."""
        folder = self.folder / f"{name}-{len(list(self.folder.iterdir()))}"
        folder.mkdir()
        return Place(port=free_port(), folder=folder, bundle=self.bundle, cores=self.cores, settings=self.settings)


def schedule(load: Load, number: int, servers: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Who has a turn under a load in a round, counted through all rounds, which is also the seed of the arrivals.

    Each turn begins with another, and has other arrivals.
    """
    names = (LIMIT, *servers) if load.clients else servers
    for step in range(number * load.turns, (number + 1) * load.turns):
        first = step % max(1, len(names))
        yield from ((step, name) for name in names[first:] + names[:first])


class Rounds:
    """The measurement from its first to its last round."""

    def __init__(self, plan: Plan, limit: Limit, client: Client, say: Callable[[str], None]) -> None:
        """Args: `say` is told what is done next."""
        self._plan, self._limit, self._say = plan, limit, say
        self._watch = Watch(client=client, seconds=plan.seconds, patience_s=plan.patience_s)
        self._masks_NHW: npt.NDArray[np.uint8] = limit.masks(plan.folder / "masks.npy")

    def run(self) -> Results:
        """All of it."""
        self._say("limit: trying settings")
        results = Results(best=self._limit.find_best(self._plan.seconds / 2))
        for number in range(self._plan.rounds):
            with ExitStack() as stack:
                self._round(number, results, stack)
        return results

    def _round(self, number: int, results: Results, stack: ExitStack) -> None:
        servers: dict[str, Server] = {}
        for name in self._plan.sides:
            if name not in results.failed and (server := self._start(name, results, stack)):
                servers[name] = server
        for load in LOADS:
            for step, name in schedule(load, number, tuple(servers)):
                where = f"round {number + 1}, {load.name}, turn {step + 1}"
                if name == LIMIT:
                    self._say(f"{where}: limit")
                    results.limit.setdefault(load.name, []).append(self._measure_limit(load, results.best))
                else:
                    self._say(f"{where}: {servers[name].side.title}")
                    servers[name].resume()
                    self._put(load, name, servers[name], results, seed=step)
                    servers[name].pause()

    def _start(self, name: str, results: Results, stack: ExitStack) -> Server | None:
        """Start a side, look at its masks, warm it up and hold it still; None if that fails."""
        self._say(f"start: {SIDES[name].title}")
        try:
            server = stack.enter_context(Server(SIDES[name], self._plan.place(name)))
            if name not in results.agreement:
                results.agreement[name] = self._agreement(server)
        except (SideFailed, OSError, HTTPException) as reason:
            results.failed[name] = str(reason) if isinstance(reason, SideFailed) else repr(reason)
            return None
        self._watch.warm_up(server, self._plan.seconds)
        results.ready_s.setdefault(name, []).append(server.ready_s)
        results.warm_bytes.setdefault(name, []).append(server.memory_bytes)
        results.processes[name] = server.processes
        server.pause()
        return server

    def _agreement(self, server: Server) -> float:
        """The worst agreement of its masks with the limit's. Raises SideFailed."""
        shares = []
        for file, mask_HW in zip(sorted(self._plan.photographs.iterdir()), self._masks_NHW, strict=True):
            response = server.segment(file.read_bytes())
            if response.status != 200:
                raise SideFailed(f"it answered {response.status}: {response.body[:300].decode(errors='replace')}")
            shares.append(float(np.mean(read_mask(response.png) == mask_HW)))
        if min(shares) < (LEAST_OF_CHOICE if server.side == SIDES["ours-auto"] else LEAST_AGREEMENT):
            raise SideFailed(f"its masks are others: {min(shares):.1%} of the pixels agree with onnxruntime's")
        return min(shares)

    def _measure_limit(self, load: Load, best: Best) -> dict[str, Any]:
        if load.clients == 1:
            return {"whole": self._limit.measure(best.lone, self._plan.seconds, whole=True)}
        return {
            "infer": self._limit.measure(best.infer, self._plan.seconds, whole=False),
            "whole": self._limit.measure(best.whole, self._plan.seconds, whole=True),
        }

    def _put(self, load: Load, name: str, server: Server, results: Results, *, seed: int) -> None:
        of_side = results.windows.setdefault(name, {})
        # Closed loads come first: they say what this side can do in this round.
        closed = [of_side[each.name][-each.turns :] for each in CLOSED if of_side.get(each.name)]
        capacity = max((_rate(windows) for windows in closed), default=1.0)
        usual_ms = median(map(lone_ms, closed[0])) if closed else float("inf")
        window = self._watch.window(server, load, capacity_per_s=capacity or 1.0, seed=seed, lone_ms=usual_ms)
        of_side.setdefault(load.name, []).append(window)


def _rate(windows: list[Window]) -> float:
    return median(window.figures.masks_per_s for window in windows)
