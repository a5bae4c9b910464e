"""Compare our service with other servers and raw onnxruntime: same model, machine, client and work (make bench-serve).

python -m tests.benchmarks.serving [--sides NAME ...] [--before FOLDER] [--rounds N] [--seconds S] [--quick] ...

Measures closed loops of 1, 8 and 32 clients, and open loops (Poisson) at 0.5, 0.8, 2 and 5 times each server's own
capacity. Prints the figures and writes them as JSON, Markdown and SVG to --out; --publish also writes docs/serving.svg
and the table of docs/benchmarks.md. Takes forty minutes on 2 cores, nine with --quick; run nothing else meanwhile.
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
from tests.benchmarks.serving.rounds import Plan, Rounds, Starts, measure_starts
from tests.benchmarks.serving.servers import ROOT, SERVERS, ServerError
from tests.benchmarks.serving.table import everything, noise, summary

PICTURE = "![Masks a second and latency of each server, and masks a second under overload](serving.svg)"
PAGE = ROOT / "docs" / "benchmarks.md"
MARKS = ("<!-- bench-serve -->\n", "<!-- /bench-serve -->\n")


def main() -> int:
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="bench-serve-") as folder:
        try:
            measured = measure(plan(options, Path(folder)), options.starts)
        except ServerError as error:
            sys.stderr.write(f"error: raw onnxruntime cannot be measured: {error}\n")
            return 1
        except KeyboardInterrupt:
            return 130
    found = report(measured)
    write(found, options)
    sys.stdout.write(
        f"\n{everything(found)}\nThe figures are in {options.out}: results.json, results.md, serving.svg\n"
    )
    return 0


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", nargs="+", choices=list(SERVERS), help="servers to measure; default: all")
    parser.add_argument(
        "--before",
        type=Path,
        metavar="FOLDER",
        help="also measure an earlier build: a checkout with a .venv",
    )
    parser.add_argument("--rounds", type=int, help="number of rounds (default: 3)")
    parser.add_argument("--seconds", type=float, help="duration of a window without its warm-up (default: 4)")
    parser.add_argument(
        "--patience", type=float, default=5.0, metavar="SECONDS", help="timeout of the clients (default: 5)"
    )
    parser.add_argument("--starts", type=int, help="number of starts for start-to-ready (default: 5)")
    parser.add_argument("--quick", action="store_true", help="1 round, windows of 1.5 s, 1 start: a functional check")
    parser.add_argument(
        "--bundle", type=Path, default=ROOT / "service" / "starter", help="model to serve (default: the starter model)"
    )
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="photographs to use, scaled to 640x480")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="settings of our service")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "runs" / "bench-serve", metavar="FOLDER", help="output folder"
    )
    parser.add_argument("--publish", action="store_true", help="write docs/serving.svg and docs/benchmarks.md")
    options = parser.parse_args(given)
    if not (options.bundle / "model.onnx").is_file():
        parser.error(
            f"--bundle {options.bundle} has no model.onnx; give a folder that `python -m exporter export` wrote"
        )
    if wrong := [entry for entry in options.set if not entry.startswith("MASKLOOP_") or "=" not in entry]:
        parser.error(f"--set {wrong[0]} is not a setting; give MASKLOOP_NAME=VALUE")
    if options.before and not (options.before / ".venv" / "bin" / "python").exists():
        parser.error(f"--before {options.before} has no .venv/bin/python; run `make trainer` in that checkout")
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.seconds = options.seconds or (1.5 if options.quick else 4.0)
    options.starts = options.starts or (1 if options.quick else 5)
    options.sides = tuple(options.sides or default_servers(options.bundle))
    if options.before and "before" not in options.sides:
        options.sides = (*options.sides, "before")
    return options


def default_servers(bundle: Path) -> list[str]:
    """Return all servers; `ours-auto` only if the service would select another graph than the others run."""
    manifest = read_bundle(bundle, verify=False).manifest
    differs = choose(manifest, "auto", CPU, "cpu").file != "model.onnx"
    return [name for name in SERVERS if name != "before" and (differs or name != "ours-auto")]


def plan(options: argparse.Namespace, folder: Path) -> Plan:
    """Return the parameters of the run; write the photographs."""
    server_folder = folder / "servers"
    server_folder.mkdir()
    return Plan(
        servers=options.sides,
        rounds=options.rounds,
        seconds=options.seconds,
        timeout_s=options.patience,
        bundle=options.bundle.absolute(),
        cores=usable_cores(),
        settings=dict(entry.split("=", 1) for entry in options.set),
        folder=server_folder,
        photographs=write_photographs(folder / "photographs", options.images),
        before=options.before and options.before.absolute(),
    )


def measure(planned: Plan, starts: int) -> Measured:
    """Measure with a progress bar. Raises ServerError if raw onnxruntime or the starts cannot be measured."""
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
    ours = "ours" in planned.servers
    # Automatic refreshing would take CPU time from the servers.
    with Progress(*columns, console=Console(stderr=True), auto_refresh=False) as bar:
        task = bar.add_task("", total=planned.steps + (starts if ours else 0))

        def progress(step: str) -> None:
            bar.update(task, description=step, advance=1, refresh=True)
            if not bar.console.is_terminal:
                bar.console.print(step)

        with Limit(planned.photographs, planned.launch("limit")) as limit, Client(planned.photographs, SIZE) as client:
            rounds = Rounds(planned, limit, client, progress)
            started: Starts | None = measure_starts(planned, starts, progress) if ours else None
            return Measured(plan=planned, results=rounds.run(), starts=started)


def write(found: Report, options: argparse.Namespace) -> None:
    """Write the output files."""
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "results.json").write_text(json.dumps(without_nan(found), indent=1) + "\n")
    (options.out / "results.md").write_text(everything(found))
    (options.out / "serving.svg").write_text(svg(found))
    if options.publish:
        (PAGE.parent / "serving.svg").write_text(svg(found))
        head = f"{found['machine']}. {noise(found)}".strip()
        PAGE.write_text(between_marks(PAGE.read_text(), f"{head}\n\n{summary(found)}\n\n{PICTURE}\n"))


def without_nan(value: Any) -> Any:
    """Replace NaN by null, recursively: JSON has no NaN."""
    if isinstance(value, dict):
        return {key: without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [without_nan(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def between_marks(text: str, new: str) -> str:
    """Replace the text between the marks.

    Raises:
        ValueError: The text has no marks.
    """
    before, begin, rest = text.partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    if not (begin and end):
        raise ValueError(
            f"{PAGE.name} has no {MARKS[0].strip()} and {MARKS[1].strip()}: insert them where the table belongs"
        )
    return before + begin + new + end + after


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    # Stop as on Ctrl-C, so that all started processes are ended.
    signal.signal(signal.SIGTERM, _interrupt)
    sys.exit(main())
