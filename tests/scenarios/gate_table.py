"""Tables of the verdicts, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from service.releases.gate.statistics.difference import Difference
from service.releases.gate.verdict import Mode, Outcome
from tests.scenarios.gate_draws import MARGIN, MODES, Trial
from tests.scenarios.gate_models import ScoredModel

TRUTHS: dict[Outcome, str] = {"promote": "better", "undecided": "neither shown", "reject": "worse by 0.01 or more"}
ERRORS_HEAD = (
    "| validation set | promoted although worse by more than 0.01 | the same, each image counted as independent "
    "| promoted although not better (`better`) | the same, each image counted as independent "
    "| undecided (`better`), decided by as many labels as asked for |"
)
VERDICTS_HEAD = (
    "| validation set | the others show | trials "
    "| `not_worse`: promoted / rejected / undecided, % | `better`: the same |"
)
VERDICTS: tuple[Outcome, ...] = ("promote", "reject", "undecided")


def models_table(models: Sequence[ScoredModel]) -> str:
    """List the models with their mIoU on all images outside training."""
    rows = (f"| {model.name} | {_miou(model):.3f} |" for model in models)
    return "\n".join(["| model | mIoU |", "|---|---|", *rows]) + "\n"


def pairs_table(pairs: Iterable[tuple[str, str, Difference]], trials: Sequence[Trial], units: int) -> str:
    """Verdicts about each pair, in the mode `better`, with one size of validation set; the better model first."""
    lines = ["| candidate | active | true difference | promoted / rejected / undecided, % |", "|---|---|---|---|"]
    for candidate, active, truth in pairs:
        own = [t for t in trials if (t.candidate, t.active, t.units) == (candidate, active, units)]
        shares = " / ".join(share(own, "better", verdict) for verdict in VERDICTS)
        lines.append(f"| {candidate} | {active} | {100 * truth.value:+.1f} | {shares} |")
    return "\n".join(lines) + "\n"


def verdicts_table(trials: Sequence[Trial]) -> str:
    """Shares of the verdicts by size of the validation set, and by what the held-out images show."""
    lines = [VERDICTS_HEAD, "|---|---|---|---|---|"]
    for units in _sizes(trials):
        for truth, text in TRUTHS.items():
            own = [trial for trial in trials if trial.units == units and trial.true_outcome == truth]
            cells = (" / ".join(share(own, mode, verdict) for verdict in VERDICTS) for mode in MODES)
            lines.append(f"| {units} stretches | {text} | {len(own)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def errors_table(trials: Sequence[Trial]) -> str:
    """Wrong promotions, and how often the asked number of labels decides."""
    lines = [ERRORS_HEAD, "|---|---|---|---|---|---|"]
    for units in _sizes(trials):
        own = [trial for trial in trials if trial.units == units]
        worse = [trial for trial in own if trial.true_difference < -MARGIN]
        not_better = [trial for trial in own if trial.true_difference <= 0]
        more = [trial.with_more for trial in own if trial.with_more is not None]
        cells = (
            _of(sum(t.verdicts["not_worse"] == "promote" for t in worse), len(worse)),
            _of(sum(t.by_image["not_worse"] == "promote" for t in worse), len(worse)),
            _of(sum(t.verdicts["better"] == "promote" for t in not_better), len(not_better)),
            _of(sum(t.by_image["better"] == "promote" for t in not_better), len(not_better)),
            _of(sum(outcome != "undecided" for outcome in more), len(more)),
        )
        lines.append(f"| {units} stretches | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def share(trials: Sequence[Trial], mode: Mode, verdict: Outcome) -> str:
    """Share of a verdict, in percent; a dash without trials."""
    hits = sum(trial.verdicts[mode] == verdict for trial in trials)
    return f"{100 * hits / len(trials):.0f}" if trials else "-"


def _sizes(trials: Iterable[Trial]) -> list[int]:
    return sorted({trial.units for trial in trials})


def _of(count: int, total: int) -> str:
    return f"{count} of {total}"


def _miou(model: ScoredModel) -> float:
    counts = model.counts
    present = counts.truth_IK.any(axis=0)
    return float(counts.iou()[present].mean())
