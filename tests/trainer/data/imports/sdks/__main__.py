"""`make formats`: write data sets with the SDKs of labelling tools, import them, and compare the masks to the pixel.

Each SDK runs in a virtual environment of its own, .venv/formats-TOOL. With --keep, the data sets replace those in
cases/, which the tests import without the SDKs.
"""

import argparse
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.trainer.data.imports.sdks.case import Case, read_case
from tests.trainer.data.imports.sdks.compare import compare

HERE = Path(__file__).parent
CASES = HERE / "cases"
TIMEOUT_S = 600
NOT_HERE = {"fiftyone": "needs a MongoDB server, which its package downloads from elsewhere"}
"""SDKs that are not tried, and why."""


class Row(NamedTuple):
    """A line of the table."""

    tool: str
    form: str
    result: str


def main() -> int:
    """Print the table. Exit code 1 if a case differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.trainer.data.imports.sdks", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="replace the data sets in cases/")
    parser.add_argument("--tools", nargs="+", metavar="TOOL", default=sorted(_tools()), choices=sorted(_tools()))
    options = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as work:
        for tool in options.tools:
            rows += _rows(tool, Path(work), keep=options.keep)
            print(f"{tool}: {len(rows)} forms so far", flush=True)  # noqa: T201
    rows += [Row(tool, "", f"not tried: {reason}") for tool, reason in NOT_HERE.items()]
    _print(rows)
    return int(any(row.result.startswith("DIFFERS") for row in rows))


def _tools() -> Iterator[str]:
    return (path.stem for path in (HERE / "requirements").glob("*.txt"))


def _rows(tool: str, work: Path, *, keep: bool) -> Iterator[Row]:
    python = Path(f".venv/formats-{tool}/bin/python")
    if not (python.parents[1] / "installed").exists():
        yield Row(tool, "", "cannot be installed here")
        return
    program = [str(python), "-m", f"tests.trainer.data.imports.sdks.writers.write_{tool}", str(work / tool)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode:
        yield Row(tool, "", f"DIFFERS: its program failed: {done.stderr.strip().splitlines()[-1]}")
    for folder in sorted(path for path in (work / tool).glob("*") if (path / "case.json").exists()):
        case, _ = read_case(folder)
        yield Row(case.tool, case.form, _result(folder, case))
        if keep and (CASES / folder.name).exists():
            shutil.rmtree(CASES / folder.name)
            shutil.copytree(folder, CASES / folder.name)


def _result(folder: Path, case: Case) -> str:
    with tempfile.TemporaryDirectory() as target:
        compared = compare(folder, Path(target) / "dataset")
    if compared.differences:
        return f"DIFFERS: {'; '.join(compared.differences)}"
    if case.is_refused:
        return f"refused: {compared.output}"
    return f"equal, but for {case.border_px} pixel along borders" if case.border_px else "equal to the pixel"


def _print(rows: list[Row]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    for row in rows:
        print(f"{row.tool:<{widths[0]}}  {row.form:<{widths[1]}}  {row.result}")  # noqa: T201


if __name__ == "__main__":
    raise SystemExit(main())
