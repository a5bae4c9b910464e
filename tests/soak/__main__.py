"""Run the service under sustained load with the starter model and compare it with its targets (make soak).

Takes half an hour on two cores, three minutes with --quick. Ends with a table; exit code 1: a target was missed.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from tests.benchmarks.serving.photographs import write_photographs
from tests.soak.drain import drain
from tests.soak.growth import growth, pictures
from tests.soak.overload import overload
from tests.soak.service import Service
from tests.soak.swaps import swaps
from tests.soak.versions import upload_versions

SIZE = (640, 480)
STARTER = Path(__file__).parents[2] / "service" / "starter"
MAX_CONCURRENT_REQUESTS = 32
MAX_WAIT_S = 3.0
MB = 1e6


class Row(NamedTuple):
    """One row of the table."""

    what: str
    measured: str
    target: str
    is_met: bool


def main(arguments: list[str] | None = None) -> int:
    """Run the scenarios. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("scenarios", nargs="*", choices=[*SCENARIOS, []], help=f"{', '.join(SCENARIOS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="a few seconds per scenario")
    options = parser.parse_args(arguments)
    console = Console(stderr=True)
    table = Table("what", "measured", "target", "met")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        photographs = [file.read_bytes() for file in sorted(write_photographs(Path(folder) / "photos").iterdir())]
        for name in options.scenarios or SCENARIOS:
            with console.status(name):
                data = Path(folder) / name
                rows += SCENARIOS[name](data, photographs, options.quick)
    for row in rows:
        table.add_row(row.what, row.measured, row.target, "yes" if row.is_met else "NO")
    console.print(table)
    return 0 if all(row.is_met for row in rows) else 1


def _overload(folder: Path, photographs: list[bytes], quick: bool) -> Iterator[Row]:
    with Service(
        folder / "data", max_concurrent_requests=str(MAX_CONCURRENT_REQUESTS), max_wait_s=str(MAX_WAIT_S)
    ) as service:
        seen = overload(
            service,
            photographs,
            SIZE,
            max_wait_s=MAX_WAIT_S,
            seconds=8.0 if quick else 12.0,
            turns=1 if quick else 6,
        )
    only_expected = set(seen.outcomes) <= {"200", "503", "504"}
    yield Row("overload: responses at 5x capacity", str(seen.outcomes), "only 200, 503 and 504", only_expected)
    yield Row("overload: capacity", f"{seen.capacity_per_s:.1f} masks/s", "", is_met=True)
    yield Row("overload: goodput, of the capacity", f"{seen.goodput_ratio:.0%}", "90 %", seen.goodput_ratio >= 0.9)
    yield Row(
        "overload: p99 of accepted requests", f"{seen.p99_s:.2f} s", f"{seen.bound_s:.2f} s", seen.p99_s <= seen.bound_s
    )
    yield Row("overload: memory growth", f"{seen.grown_bytes / MB:.0f} MB", "50 MB", seen.grown_bytes < 50 * MB)
    yield Row("overload: recovery", f"{seen.recovered_s:.1f} s", "5 s", seen.recovered_s <= 5)
    probes = f"p99 {seen.probe_p99_ms:.0f} ms, worst {seen.probe_worst_ms:.0f} ms"
    yield Row("overload: /livez", probes, "p99 50 ms", seen.probe_p99_ms <= 50)


def _drain(folder: Path, photographs: list[bytes], _quick: bool) -> Iterator[Row]:
    with Service(folder / "data") as service:
        seen = drain(service, photographs, SIZE, requests=24)
    answered = seen.outcomes == {"200": seen.accepted}
    yield Row("SIGTERM: accepted requests", str(seen.outcomes), f"{seen.accepted} answered", answered)
    yield Row("SIGTERM: a later connection", "refused" if seen.refused else "accepted", "refused", seen.refused)
    yield Row("SIGTERM: shutdown", f"{seen.ended_s:.1f} s", "30 s", seen.ended_s < 30)


def _swaps(folder: Path, photographs: list[bytes], quick: bool) -> Iterator[Row]:
    data = folder / "data"
    with Service(data, model_poll_s="0.1") as service:
        valid, broken = upload_versions(service, STARTER, data, folder / "versions")
        seen = swaps(service, valid, broken, photographs, SIZE, cycles=4 if quick else 50)
    yield Row(f"{seen.cycles} swaps: responses", str(seen.outcomes), "only 200", set(seen.outcomes) == {"200"})
    yield Row("swaps: memory growth", f"{seen.grown_bytes / MB:.0f} MB", "50 MB", seen.grown_bytes < 50 * MB)
    yield Row("swaps: a broken version", f"{seen.active} is active", "the previous one", seen.active == valid[1])


def _growth(folder: Path, _photographs: list[bytes], quick: bool) -> Iterator[Row]:
    requests, warm_up = (400, 100) if quick else (20_000, 2_000)
    with Service(folder / "data") as service:
        seen = growth(service, pictures(60, 1000), requests=requests, warm_up=warm_up)
    memory = " ".join(f"{value / MB:.0f}" for value in seen.after_bytes[:: max(1, len(seen.after_bytes) // 10)])
    yield Row(f"{requests} requests: responses", str(seen.statuses), "200", set(seen.statuses) == {200})
    yield Row(
        f"memory growth after {warm_up}",
        f"+{seen.grown_bytes / MB:.0f} MB ({memory})",
        "50 MB",
        seen.grown_bytes < 50 * MB,
    )


SCENARIOS: dict[str, Callable[[Path, list[bytes], bool], Iterator[Row]]] = {
    "overload": _overload,
    "drain": _drain,
    "swaps": _swaps,
    "growth": _growth,
}

if __name__ == "__main__":
    sys.exit(main())
