"""Our service beside other servers and raw onnxruntime: same model, machine, client and work (make bench-serve).

python -m tests.benchmarks.serving [--sides NAME ...] [--rounds N] [--seconds S] [--quick] [--bundle FOLDER] ...

Closed loops of 1, 8 and 32 clients, and open ones (Poisson) at 0.5, 0.8, 2 and 5 times what each side can do. The
figures go to the terminal, and as JSON, Markdown and SVG to --out; --publish writes them to docs/serving.svg and
docs/benchmarks.md. On 2 cores: forty minutes, and --quick nine. Nothing else should run meanwhile.
"""

import argparse
import json
import math
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from service.cores import usable_cores
from service.models.bundle import read_bundle
from service.models.precision import choose
from service.segmentation.inference.providers import CPU
from tests.benchmarks.serving.client import Client
from tests.benchmarks.serving.limit import Limit
from tests.benchmarks.serving.photographs import SIZE, write_photographs
from tests.benchmarks.serving.plot import svg
from tests.benchmarks.serving.report import Measured, Report, report
from tests.benchmarks.serving.rounds import Plan, Rounds
from tests.benchmarks.serving.sides import ROOT, SIDES, SideFailed
from tests.benchmarks.serving.starts import Starts, measure_starts
from tests.benchmarks.serving.table import everything, noise, summary

PICTURE = "![Masks a second and latency of each server, and masks a second under overload](serving.svg)"
PAGE = ROOT / "docs" / "benchmarks.md"
MARKS = ("<!-- bench-serve -->\n", "<!-- /bench-serve -->\n")


def main() -> int:
    options = arguments()
    # As Ctrl-C does: so that whatever was started is ended.
    signal.signal(signal.SIGTERM, _interrupt)
    with tempfile.TemporaryDirectory(prefix="bench-serve-") as folder:
        try:
            measured = measure(plan(options, Path(folder)), options.starts)
        except SideFailed as reason:
            sys.stderr.write(f"error: the limit cannot be measured: {reason}\n")
            return 1
        except KeyboardInterrupt:
            return 130
    found = report(measured)
    write(found, options)
    sys.stdout.write(
        f"\n{everything(found)}\n{options.out} has these figures as results.json, results.md, serving.svg\n"
    )
    return 0


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), help="default: all that the bundle makes sense of")
    parser.add_argument("--rounds", type=int, help="default: 3")
    parser.add_argument("--seconds", type=float, help="of each window, beyond its run-in (default: 4)")
    parser.add_argument("--patience", type=float, default=5.0, metavar="SECONDS", help="then a client gives up")
    parser.add_argument("--starts", type=int, help="starts of our service, for start-to-ready (default: 5)")
    parser.add_argument("--quick", action="store_true", help="1 round, 1.5 s a window, 1 start: does everything work?")
    parser.add_argument("--bundle", type=Path, default=ROOT / "service" / "starter", help="default: the starter model")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="photographs to use, scaled to 640x480")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="settings of ours: MASKLOOP_...=...")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench-serve", metavar="FOLDER")
    parser.add_argument("--publish", action="store_true", help="write docs/serving.svg and docs/benchmarks.md")
    options = parser.parse_args(given)
    if not (options.bundle / "model.onnx").is_file():
        parser.error(f"--bundle {options.bundle} has no model.onnx: give the folder that `python -m exporter` wrote")
    if wrong := [entry for entry in options.set if not entry.startswith("MASKLOOP_") or "=" not in entry]:
        parser.error(f"--set {wrong[0]}: give MASKLOOP_NAME=VALUE")
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.seconds = options.seconds or (1.5 if options.quick else 4.0)
    options.starts = options.starts or (1 if options.quick else 5)
    options.sides = tuple(options.sides or default_sides(options.bundle))
    return options


def default_sides(bundle: Path) -> list[str]:
    """All; our own choice of a graph only where it is not the one that all others run."""
    manifest = read_bundle(bundle, verify=False).manifest
    others = choose(manifest, "auto", CPU, "cpu").file != "model.onnx"
    return [name for name in SIDES if others or name != "ours-auto"]


def plan(options: argparse.Namespace, folder: Path) -> Plan:
    """What is to be measured."""
    running = folder / "sides"
    running.mkdir()
    return Plan(
        sides=options.sides,
        rounds=options.rounds,
        seconds=options.seconds,
        patience_s=options.patience,
        bundle=options.bundle.absolute(),
        cores=usable_cores(),
        settings=dict(entry.split("=", 1) for entry in options.set),
        folder=running,
        photographs=write_photographs(folder / "photographs", options.images),
    )


def measure(planned: Plan, starts: int) -> Measured:
    """Measure it, with a bar that says how far it is. Raises SideFailed where not even the limit can be measured."""
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
    ours = "ours" in planned.sides
    # No refreshing by itself: it would take CPU while others are measured.
    with Progress(*columns, console=Console(stderr=True), auto_refresh=False) as bar:
        task = bar.add_task("", total=planned.steps + (starts if ours else 0))

        def say(words: str) -> None:
            bar.update(task, description=words, advance=1, refresh=True)
            if not bar.console.is_terminal:
                bar.console.print(words)

        with Limit(planned.photographs, planned.place("limit")) as limit, Client(planned.photographs, SIZE) as client:
            rounds = Rounds(planned, limit, client, say)
            started: Starts | None = measure_starts(planned, starts, say) if ours else None
            return Measured(plan=planned, results=rounds.run(), starts=started)


def write(found: Report, options: argparse.Namespace) -> None:
    """The files."""
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "results.json").write_text(json.dumps(without_nan(found), indent=1) + "\n")
    (options.out / "results.md").write_text(everything(found))
    (options.out / "serving.svg").write_text(svg(found))
    if options.publish:
        (PAGE.parent / "serving.svg").write_text(svg(found))
        head = f"{found['machine']}. {noise(found)}".strip()
        PAGE.write_text(between_marks(PAGE.read_text(), f"{head}\n\n{summary(found)}\n\n{PICTURE}\n"))


def without_nan(value: Any) -> Any:
    """The same, with null for what is not a number: JSON has no such."""
    if isinstance(value, dict):
        return {key: without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [without_nan(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def between_marks(text: str, new: str) -> str:
    """A text with what stands between the marks replaced.

    Raises:
        ValueError: It has no marks.
    """
    before, begin, rest = text.partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    if not (begin and end):
        raise ValueError(
            f"{PAGE.name} has no {MARKS[0].strip()} and {MARKS[1].strip()}: put them where the table belongs"
        )
    return before + begin + new + end + after


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
