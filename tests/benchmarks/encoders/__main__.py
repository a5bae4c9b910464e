"""Build one network of every family of timm, export those used most, and write docs/encoders.md (make encoders).

python -m tests.benchmarks.encoders [--only NAME ...] [--no-export] [--limit SECONDS] [--results FILE]

Each network runs in its own process. Results are kept in a file, so an interrupted run continues.
"""

import argparse
import json
import multiprocessing
import resource
import sys
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path

from rich.progress import Progress

from tests.benchmarks.encoders.check import Result, check
from tests.benchmarks.encoders.families import EXPORTED, representatives
from tests.benchmarks.encoders.table import write_page

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([check.__module__])  # so that torch is imported once


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these networks instead of one of every family")
    parser.add_argument("--no-export", action="store_true", help="only build them")
    parser.add_argument("--limit", type=int, default=300, metavar="SECONDS", help="CPU time of a network (300)")
    parser.add_argument("--results", type=Path, default=Path("runs/encoders.json"), help="file of the results")
    parser.add_argument("--page", type=Path, default=Path("docs/encoders.md"), help="page with the table")
    options = parser.parse_args()
    results = json.loads(options.results.read_text()) if options.results.exists() else {}
    options.results.parent.mkdir(parents=True, exist_ok=True)
    with Progress() as progress:
        for name in progress.track(options.only or representatives(), description="networks"):
            with_export = name in EXPORTED and not options.no_export
            if name in results and (results[name]["export_s"] or results[name]["error"] or not with_export):
                continue
            results[name] = asdict(run(name, with_export=with_export, limit_s=options.limit))
            options.results.write_text(json.dumps(results, indent=1))
    write_page(options.page, [Result(**each) for each in results.values()])
    return 0


def run(name: str, *, with_export: bool, limit_s: int) -> Result:
    """Check a network in a process of its own, which may use `limit_s` seconds of CPU time."""
    receiver, sender = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=_work, args=(name, with_export, limit_s, sender))
    process.start()
    sender.close()
    try:
        result: Result = receiver.recv()
    except EOFError:
        result = Result(name=name, error=f"not finished within {limit_s} s of CPU time")
    process.join()
    return result


def _work(name: str, with_export: bool, limit_s: int, sender: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (limit_s, limit_s))
    sender.send(check(name, with_export=with_export))


if __name__ == "__main__":
    sys.exit(main())
