"""The table of the chaos test: a row for each kind of fault."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import median

from tests.chaos.fault_rounds import Chaos, Injection, Round
from tests.chaos.faults import Fault

HEAD = (
    "fault",
    "rounds",
    "injected",
    "requests answered",
    "refused or broken by the fault",
    "runs: well / resumed / failed",
    "recovered in (median, worst)",
    "lost",
)


def markdown(faults: Sequence[Fault], rounds: Sequence[Round], missing: dict[str, str]) -> str:
    """Write the table. A round with several faults counts in the row of each; `missing` says why one was impossible."""
    rows = [_row(fault.name, rounds, missing) for fault in faults]
    rows.append(("all", *_figures(rounds, [each for played in rounds for each in played.injections])))
    return "\n".join(_line(row) for row in (HEAD, ["---"] * len(HEAD), *rows))


def _row(name: str, rounds: Sequence[Round], missing: dict[str, str]) -> Sequence[str]:
    if name in missing:
        return (name, "0", f"not injected: {missing[name]}", *["-"] * (len(HEAD) - 3))
    chosen = [played for played in rounds if any(each.fault.name == name for each in played.injections)]
    return (
        name,
        *_figures(chosen, [each for played in chosen for each in played.injections if each.fault.name == name]),
    )


def _figures(rounds: Sequence[Round], injections: Sequence[Injection]) -> Iterable[str]:
    done = [each for each in injections if each.done]
    runs = sum((played.runs for played in rounds), Counter[str]())
    seconds = [each.recovered_s for each in done if each.recovered_s is not None]
    yield str(len(rounds))
    yield str(len(done))
    yield str(sum(played.answered for played in rounds))
    yield str(sum(played.excused for played in rounds))
    yield f"{runs['judged']} / {runs['resumed and judged']} / {runs['failed']}"
    yield f"{median(seconds):.1f} s, {max(seconds):.1f} s" if seconds else "-"
    yield str(sum(len(played.violations) for played in rounds))


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def summary(number: int, played: Round, seconds: float) -> str:
    """Describe a round in a line, with a line for each violation."""
    runs = ", ".join(f"{count} {how}" for how, count in played.runs.items()) or "no run"
    faults = "; ".join(_injection(each) for each in played.injections)
    head = f"round {number} ({seconds:.0f} s): {faults}: {played.answered} answered, {played.excused} excused; {runs}"
    return "\n".join([head, *(f"  LOST OR WRONG: {violation}" for violation in played.violations)])


def conclusion(chaos: Chaos, rounds: Sequence[Round]) -> str:
    """Describe the whole, with every failed run and every violation."""
    lost = [violation for played in rounds for violation in played.violations]
    images, counted = len(chaos.ledger.entries), {name: len(rows) for name, rows in chaos.seen.items()}
    lines = [
        f"{images} images, {counted['run']} runs, {counted['activation']} activations; lost or wrong: {len(lost)}",
        *(f"a run failed: {' '.join(reason.split())[:300]}" for reason in chaos.reasons),
        *(f"lost or wrong: {violation}" for violation in lost),
    ]
    return "".join(f"{line}\n" for line in lines)


def _injection(injection: Injection) -> str:
    recovered = "" if injection.recovered_s is None else f", recovered in {injection.recovered_s:.1f} s"
    return f"{injection.fault.name} ({injection.done or 'nothing to do it to'}{recovered})"
