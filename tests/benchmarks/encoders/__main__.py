"""Build one network of every family of timm, export those used most, and write docs/encoders.md (make encoders).

python -m tests.benchmarks.encoders [--only NAME ...] [--no-export] [--limit SECONDS] [--results FILE]

Each network runs in its own process. Results are kept in a file, so an interrupted run continues.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from rich.progress import Progress

from tests.benchmarks.encoders.check import Result
from tests.benchmarks.encoders.families import EXPORTED, representatives
from tests.benchmarks.encoders.process import run
from tests.benchmarks.encoders.table import write_page


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these networks instead of one of every family")
    parser.add_argument("--no-export", action="store_true", help="only build them")
    parser.add_argument("--limit", type=int, default=300, metavar="SECONDS", help="CPU time of a network (300)")
    parser.add_argument("--results", type=Path, default=Path("runs/encoders.json"), help="file of the results")
    parser.add_argument("--page", type=Path, default=Path("docs/encoders.md"), help="page with the table")
    options = parser.parse_args(arguments)
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


if __name__ == "__main__":
    sys.exit(main())
