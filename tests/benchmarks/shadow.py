"""Measure whether a shadow release delays requests: the service with and without one, in turn (make bench-shadow).

python -m tests.benchmarks.shadow [--turns N] [--seconds S] [--bundle FOLDER]

The candidate is a copy of the model and gets all images, the worst case. Each turn puts every load on both services;
the one that is not measured is stopped (SIGSTOP), and the order changes from turn to turn. The table has p50, p99 and
masks a second with the shadow and without, and their ratio over all turns with its 95 % interval. `compared` is the
share of the answers that the shadow segmented as well.
"""

import argparse
import json
import math
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from service.cores import usable_cores
from service.releases.transitions import conclude, record_verdict
from service.settings import Settings
from service.state import open_state
from service.storage.tables import Run
from tests.benchmarks.serving.client import Client, Job
from tests.benchmarks.serving.figures import Figures, figures, pooled
from tests.benchmarks.serving.photographs import SIZE, write_photographs
from tests.benchmarks.serving.server_process import ServerProcess
from tests.benchmarks.serving.servers import ROOT, SERVERS, Launch
from tests.contract.conftest import free_port

KEY = "key-of-the-benchmark-0123456789"
NAMES = ("without", "with")
WARM_UP_S = 0.3
DRAWS = 200


@dataclass(frozen=True, slots=True)
class Load:
    """Clients of a closed loop, or the share of the capacity of an open one (Poisson)."""

    name: str
    clients: int = 0
    times_capacity: float = 0.0


LOADS = (Load("0.3x", 0, 0.3), Load("1 client", 1), Load("8 clients", 8))


@dataclass(slots=True)
class Windows:
    """Windows of one load, by turn."""

    without: list[Figures] = field(default_factory=list)
    with_: list[Figures] = field(default_factory=list)
    compared: int = 0
    """Images that the shadow segmented as well."""

    def row(self, name: str) -> str:
        """A row of the table."""
        before, after = pooled(self.without), pooled(self.with_)
        cells = [
            self._ratio(lambda windows: pooled(windows)["p50_ms"]),
            self._ratio(lambda windows: pooled(windows)["p99_ms"]),
            self._ratio(lambda windows: sum(each.masks_per_s for each in windows)),
        ]
        answers = sum(each.outcomes.get("200", 0) for each in self.with_)
        return (
            f"| {name} | {before['p50_ms']:.0f} to {after['p50_ms']:.0f} ms | {cells[0]} | "
            f"{before['p99_ms']:.0f} to {after['p99_ms']:.0f} ms | {cells[1]} | {cells[2]} | "
            f"{self.compared / max(answers, 1):.0%} |"
        )

    def _ratio(self, value: Callable[[list[Figures]], float]) -> str:
        """The ratio over all turns, with its 95 % interval by a bootstrap of the turns."""
        rng, turns = np.random.default_rng(0), len(self.without)
        draws = [rng.integers(0, turns, turns) for _ in range(DRAWS)]
        pairs = [([self.without[turn] for turn in draw], [self.with_[turn] for turn in draw]) for draw in draws]
        ratios = [divided(value(after), value(before)) for before, after in pairs]
        # A draw of turns without an answer has no ratio.
        low, high = np.percentile([each for each in ratios if math.isfinite(each)] or [math.nan], [2.5, 97.5])
        return f"{divided(value(self.with_), value(self.without)):.2f} ({low:.2f} to {high:.2f})"


def divided(value: float, by: float) -> float:
    """Quotient; NaN without a divisor."""
    return value / by if by else math.nan


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=2.0, help="duration of a window without its warm-up")
    parser.add_argument("--bundle", type=Path, default=ROOT / "service" / "starter")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-shadow-") as folder, ExitStack() as stack:
        photographs = write_photographs(Path(folder) / "photographs")
        client = stack.enter_context(Client(photographs, SIZE))
        servers = {name: stack.enter_context(start(name, Path(folder), options.bundle)) for name in NAMES}
        servers["with"].pause()
        capacity_per_s = run(client, servers["without"], LOADS[-1], options.seconds).masks_per_s
        found = {load.name: Windows() for load in LOADS}
        for turn, load, name in schedule(options.turns):
            servers[next(other for other in NAMES if other != name)].pause()
            servers[name].resume()
            before = compared(servers[name]) if name == "with" else 0
            rate_per_s = load.times_capacity * capacity_per_s
            window = run(client, servers[name], load, options.seconds, rate_per_s=rate_per_s, seed=turn)
            windows = found[load.name]
            (windows.with_ if name == "with" else windows.without).append(window)
            windows.compared += compared(servers[name]) - before if name == "with" else 0
        for server in servers.values():
            server.resume()
    sys.stdout.write("| load | p50 | ratio | p99 | ratio | masks/s | compared |\n|---|---|---|---|---|---|---|\n")
    for load_name, windows in found.items():
        sys.stdout.write(windows.row(load_name) + "\n")
    return 0


def schedule(turns: int) -> Iterator[tuple[int, Load, str]]:
    """Yield each load on each server in each turn; every second turn begins with the other server."""
    for turn in range(turns):
        for load in LOADS:
            yield from ((turn, load, name) for name in NAMES[:: -1 if turn % 2 else 1])


def start(name: str, folder: Path, bundle: Path) -> ServerProcess:
    """Start a service, with a shadow release or without."""
    launch = Launch(
        port=free_port(),
        folder=folder / name,
        bundle=bundle.absolute(),
        cores=usable_cores(),
        settings={"MASKLOOP_SHADOW_SHARE": "1.0", "MASKLOOP_API_KEY": KEY, "MASKLOOP_ANONYMOUS_SCOPES": "predict"},
    )
    launch.folder.mkdir()
    if name == "with":
        add_shadow(launch)
    server = ServerProcess(SERVERS["ours-auto"], launch)
    for file in sorted((folder / "photographs").iterdir()):
        server.segment(file.read_bytes())
    return server


def add_shadow(launch: Launch) -> None:
    """Add a release in the state `shadow` to a new data folder; its candidate is a copy of the model."""
    copy = shutil.copytree(launch.bundle, launch.folder / "candidate")
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["version"] = "20990101T000000-shadow00"
    (copy / "manifest.json").write_text(json.dumps(manifest))
    settings = Settings(data_dir=launch.folder / "data", model=str(launch.bundle), release_mode="shadow")
    state = open_state(settings)
    state.models.ensure_start_model()
    state.models.import_folder(copy, state="candidate")
    with state.database.write() as session:
        session.add(Run(id="bench", number=1, status="judged", reason="manual"))
        session.flush()
        verdict = {"outcome": "promote", "sentence": "It is a copy."}
        against = state.models.activation()
        conclude(session, record_verdict(session, "bench", manifest["version"], verdict, against), settings)
    state.close()


def run(
    client: Client, server: ServerProcess, load: Load, seconds: float, *, rate_per_s: float = 0.0, seed: int = 0
) -> Figures:
    """Put a load on a service."""
    job = Job(
        port=server.launch.port,
        path=server.spec.path,
        headers=server.spec.headers,
        seconds=WARM_UP_S + seconds,
        timeout_s=30.0,
        clients=load.clients,
        rate_per_s=rate_per_s,
        seed=seed,
    )
    return figures(client.run(job).samples, WARM_UP_S, job.seconds, closed=bool(load.clients))


def compared(server: ServerProcess) -> int:
    """Number of images that the shadow segmented so far."""
    answer = server.request("GET", "/v1/releases/1", headers={"X-API-Key": KEY})
    disagreement = json.loads(answer.png)["disagreement"]
    return int(disagreement["images"]) if disagreement else 0


if __name__ == "__main__":
    sys.exit(main())
