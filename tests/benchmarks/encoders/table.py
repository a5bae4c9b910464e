"""Write the results of the sweep into docs/encoders.md, between its marks."""

from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.encoders.check import MAX_MILLIONS, TOO_LARGE, Result

START, END = "<!-- encoders -->", "<!-- /encoders -->"
EQUAL = 0.999
"""Fraction of equal mask pixels above which two graphs are called equal, as for a bundle's probe images."""


def write_page(page: Path, results: Sequence[Result]) -> None:
    """Replace what is between the marks of `page`."""
    before, _, rest = page.read_text(encoding="utf-8").partition(START)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{START}\n\n{summary(results)}\n\n{table(results)}\n\n{END}{after}", encoding="utf-8")


def summary(results: Sequence[Result]) -> str:
    """One sentence with the numbers."""
    tried = [each for each in results if each.error != TOO_LARGE]
    built = [each for each in tried if not each.error]
    exported = [each for each in built if each.export_s]
    equal = sum(_is_equal(each) for each in exported)
    noted = sum(bool(each.notes) for each in built)
    return (
        f"Of {len(tried)} networks {len(built)} are built, {noted} of them with a note. "
        f"Of {len(exported)} exported networks {equal} give equal masks. {len(results) - len(tried)} have more than "
        f"{MAX_MILLIONS} million parameters and are not tried."
    )


def table(results: Sequence[Result]) -> str:
    """A Markdown table, one row for each network."""
    rows = ["| network | million parameters | multiple | exported | equal masks | note |", "|---|---|---|---|---|---|"]
    return "\n".join(rows + [_row(each) for each in sorted(results, key=lambda each: each.name)])


def _row(each: Result) -> str:
    exported, equal = "", ""
    if each.export_error:
        exported = f"no: {each.export_error}"
    elif each.export_s:
        exported, equal = f"{each.export_s:.0f} s", f"{100 * each.equal:.3f} %"
        equal += f", fused {100 * each.fused_equal:.3f} %" if each.fused else ""
    note = "; ".join(each.notes)
    if each.error:
        note = TOO_LARGE if each.error == TOO_LARGE else f"**refused**: {each.error.removeprefix(each.name + ': ')}"
    cells = [f"`{each.name}`", f"{each.millions:.1f}", str(each.multiple or ""), exported, equal, note]
    return "| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |"


def _is_equal(each: Result) -> bool:
    return not each.export_error and each.equal >= EQUAL and (not each.fused or each.fused_equal >= EQUAL)
