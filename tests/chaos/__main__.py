"""Run the service with real training while its processes, disk, clock and database fail (make chaos).

Clients upload, label, delete, segment and list images all the time, and remember every answer. After each round the
pool, the files, the runs and the models are compared with what was acknowledged. Ends with a table in Markdown; exit
code 1: something was lost. Thirty rounds take about 35 minutes on two cores.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.chaos.assembly import Plan, assembled, choose_faults
from tests.chaos.fault_rounds import Chaos, Round
from tests.chaos.fault_table import conclusion, markdown, summary
from tests.chaos.faults import Fault

QUICK_ROUNDS = 6
FAULTS_PER_ROUND = 2

ending = threading.Event()
"""Set by SIGTERM."""


def main(arguments: list[str] | None = None) -> int:
    """Play the rounds. Returns the exit code."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _end_after_round)
    console = Console(stderr=True)
    log = Path(tempfile.mkdtemp(prefix="maskloop-chaos-log-")) / "service.log"
    with tempfile.TemporaryDirectory(prefix="maskloop-chaos-") as name:
        folder = Path(name)
        first = options.first or folder / "first"
        plan = Plan(folder=folder, first=first, log=log, database=options.database, seed=options.seed)
        with assembled(plan, console) as chaos:
            faults, missing = choose_faults(chaos.scene, options.faults)
            possible = [each for each in faults if each.name not in missing]
            rounds = _play(chaos, possible, QUICK_ROUNDS if options.quick else options.rounds, console)
            sys.stdout.write(f"{markdown(faults, rounds, missing)}\n\n{conclusion(chaos, rounds)}")
            lost = any(played.violations for played in rounds)
            if lost:
                _keep(chaos.scene.installation.data_dir, log.parent / "data")
    sys.stdout.write(f"log of the service: {log}\n")
    return int(lost)


def _play(chaos: Chaos, faults: list[Fault], count: int, console: Console) -> list[Round]:
    rng = np.random.default_rng(chaos.scene.rng.integers(2**32))
    deck, rounds = _deck(faults, rng), list[Round]()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("rounds", total=count)
        for number in range(1, count + 1):
            if ending.is_set():
                break
            chosen, begin = [next(deck) for _ in range(FAULTS_PER_ROUND)], time.monotonic()
            bar.update(task, description=" + ".join(each.name for each in chosen))
            rounds.append(chaos.play(chosen, rng))
            bar.advance(task)
            text = summary(number, rounds[-1], time.monotonic() - begin)
            bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
    return rounds


def _end_after_round(_number: int, _frame: FrameType | None) -> None:
    """End with the table of the rounds so far; at the second signal, at once."""
    if ending.is_set():
        sys.exit(143)
    ending.set()


def _deck(faults: list[Fault], rng: np.random.Generator) -> Iterator[Fault]:
    """Yield all faults in a random order, and again."""
    while True:
        yield from (faults[index] for index in rng.permutation(len(faults)))


def _keep(data_dir: Path, kept: Path) -> None:
    shutil.copytree(data_dir, kept, ignore=shutil.ignore_patterns("*.sock"), symlinks=True)
    sys.stdout.write(f"the data folder is kept: {kept}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=30, metavar="N", help="default: 30")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the faults, their moments and the images")
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds")
    parser.add_argument("--faults", nargs="+", metavar="WORDS", help="only faults whose name contains one of these")
    parser.add_argument("--first", type=Path, metavar="FOLDER", help="keep the first model here for the next call")
    return parser


if __name__ == "__main__":
    sys.exit(main())
