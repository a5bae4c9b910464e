"""`make soak`: the service under load for long, with the starter model, held to its aims. Ends with a table.

Half an hour on two cores; `--quick` shows in three minutes that everything runs. Exit code 1: an aim was missed.
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
PLACES = 32
LONGEST_WAIT_S = 3.0
MB = 1e6


class Fact(NamedTuple):
    """One line of the table."""

    what: str
    found: str
    aim: str
    holds: bool


def main(arguments: list[str] | None = None) -> int:
    """Run the scenarios. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("scenarios", nargs="*", choices=[*SCENARIOS, []], help=f"of {', '.join(SCENARIOS)}; none: all")
    parser.add_argument("--quick", action="store_true", help="a few seconds of each")
    options = parser.parse_args(arguments)
    console = Console(stderr=True)
    table = Table("what", "found", "aim", "")
    facts: list[Fact] = []
    with tempfile.TemporaryDirectory() as folder:
        photographs = [file.read_bytes() for file in sorted(write_photographs(Path(folder) / "photos").iterdir())]
        for name in options.scenarios or SCENARIOS:
            with console.status(name):
                data = Path(folder) / name
                facts += SCENARIOS[name](data, photographs, options.quick)
    for fact in facts:
        table.add_row(fact.what, fact.found, fact.aim, "yes" if fact.holds else "NO")
    console.print(table)
    return 0 if all(fact.holds for fact in facts) else 1


def _overload(folder: Path, photographs: list[bytes], quick: bool) -> Iterator[Fact]:
    with Service(folder / "data", max_concurrent_requests=str(PLACES), max_wait_s=str(LONGEST_WAIT_S)) as service:
        seen = overload(
            service,
            photographs,
            SIZE,
            longest_wait_s=LONGEST_WAIT_S,
            seconds=8.0 if quick else 12.0,
            turns=1 if quick else 6,
        )
    told = set(seen.outcomes) <= {"200", "503", "504"}
    yield Fact("overload: answers at 5x capacity", str(seen.outcomes), "200, 503, 504 and nothing else", told)
    yield Fact("overload: capacity", f"{seen.capacity_per_s:.1f} masks/s", "", holds=True)
    yield Fact("overload: goodput of it", f"{seen.goodput_ratio:.0%}", "90 %", seen.goodput_ratio >= 0.9)
    yield Fact(
        "overload: p99 of the accepted", f"{seen.p99_s:.2f} s", f"{seen.bound_s:.2f} s", seen.p99_s <= seen.bound_s
    )
    yield Fact("overload: memory grown", f"{seen.grown_bytes / MB:.0f} MB", "50 MB", seen.grown_bytes < 50 * MB)
    yield Fact("overload: back to normal", f"{seen.recovered_s:.1f} s", "5 s", seen.recovered_s <= 5)
    probes = f"p99 {seen.probe_p99_ms:.0f} ms, worst {seen.probe_worst_ms:.0f} ms"
    yield Fact("overload: /livez meanwhile", probes, "p99 50 ms", seen.probe_p99_ms <= 50)


def _drain(folder: Path, photographs: list[bytes], _quick: bool) -> Iterator[Fact]:
    with Service(folder / "data") as service:
        seen = drain(service, photographs, SIZE, requests=24)
    answered = seen.outcomes == {"200": seen.accepted}
    yield Fact("SIGTERM: of the accepted", str(seen.outcomes), f"{seen.accepted} answered", answered)
    yield Fact("SIGTERM: a later one", "refused" if seen.refused else "taken", "refused", seen.refused)
    yield Fact("SIGTERM: over after", f"{seen.ended_s:.1f} s", "30 s", seen.ended_s < 30)


def _swaps(folder: Path, photographs: list[bytes], quick: bool) -> Iterator[Fact]:
    data = folder / "data"
    with Service(data, model_poll_s="0.1") as service:
        sound, broken = upload_versions(service, STARTER, data, folder / "versions")
        seen = swaps(service, sound, broken, photographs, SIZE, cycles=4 if quick else 50)
    yield Fact(
        f"{seen.cycles} swaps: answers", str(seen.outcomes), "200 and nothing else", set(seen.outcomes) == {"200"}
    )
    yield Fact("swaps: memory grown", f"{seen.grown_bytes / MB:.0f} MB", "50 MB", seen.grown_bytes < 50 * MB)
    yield Fact("swaps: a broken version", f"{seen.serves} serves", "the one before", seen.serves == sound[1])


def _growth(folder: Path, _photographs: list[bytes], quick: bool) -> Iterator[Fact]:
    requests, settled = (400, 100) if quick else (20_000, 2_000)
    with Service(folder / "data") as service:
        seen = growth(service, pictures(60, 1000), requests=requests, settled=settled)
    memory = " ".join(f"{value / MB:.0f}" for value in seen.after_bytes[:: max(1, len(seen.after_bytes) // 10)])
    yield Fact(f"{requests} requests: answers", str(seen.statuses), "200", set(seen.statuses) == {200})
    yield Fact(
        f"memory after {settled}", f"+{seen.grown_bytes / MB:.0f} MB ({memory})", "50 MB", seen.grown_bytes < 50 * MB
    )


SCENARIOS: dict[str, Callable[[Path, list[bytes], bool], Iterator[Fact]]] = {
    "overload": _overload,
    "drain": _drain,
    "swaps": _swaps,
    "growth": _growth,
}

if __name__ == "__main__":
    sys.exit(main())
