"""Measure the image pool at several sizes and on both databases, and the rate of uploads (make bench-pool).

python -m tests.benchmarks.pool [--rows N ...] [--databases sqlite postgresql] [--before CHECKOUT]

`--before` is a checkout of an earlier build with its .venv, whose rate of uploads is measured in turn with this one.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.progress import Progress

from tests.benchmarks.pool.ingestion import ingest
from tests.benchmarks.pool.operations import Timings, measure
from tests.service import postgresql

COLUMNS = {
    "upload_ms": "upload",
    "label_ms": "label",
    "page_ms": "page of 100",
    "slowest_page_ms": "slowest page",
    "labelled_page_ms": "page of labelled",
    "counts_ms": "counts",
    "due_ms": "is a run due",
    "start_ms": "start a run",
    "snapshot_ms": "snapshot (worker)",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], metavar="N")
    parser.add_argument("--databases", nargs="+", default=["sqlite", "postgresql"], choices=["sqlite", "postgresql"])
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="an earlier build, for the rate of uploads")
    parser.add_argument("--pool", type=int, default=10_000, help="images in the pool when uploads are timed (10000)")
    parser.add_argument("--turns", type=int, default=6, help="windows of uploads for each build (6); 0: none")
    options = parser.parse_args()
    found = []
    with Progress() as progress, tempfile.TemporaryDirectory() as folder:
        pairs = [(kind, rows) for kind in options.databases for rows in options.rows]
        for kind, rows in progress.track(pairs, description="pools"):
            found.append(measure(kind, rows, Path(folder) / f"{kind}-{rows}"))
            postgresql.drop_databases()
        sys.stdout.write(table(found) + "\n")
        if options.turns:
            rates = ingest(
                Path(folder) / "ingestion", options.before, pool=options.pool, turns=options.turns, seconds=4
            )
            sys.stdout.write(f"\nuploads of 640x480 JPEGs, images a second: {rates_text(rates)}\n")
    return 0


def table(found: Sequence[Timings]) -> str:
    """A Markdown table, one row for each pool; times in milliseconds."""
    head = ["database", "images", *COLUMNS.values(), "database for a run"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for each in found:
        values = asdict(each)
        cells = [each.database, f"{each.rows:,}", *(f"{values[name]:.1f}" for name in COLUMNS)]
        lines.append("| " + " | ".join([*cells, f"{each.run_bytes / 1e6:.2f} MB"]) + " |")
    return "\n".join(lines)


def rates_text(rates: dict[str, float]) -> str:
    """The rates, each with its ratio to the earlier build if there is one."""
    before = rates.get("before")
    return ", ".join(
        f"{name} {rate:.0f}" + (f" ({rate / before:.2f}x)" if before else "") for name, rate in rates.items()
    )


if __name__ == "__main__":
    sys.exit(main())
