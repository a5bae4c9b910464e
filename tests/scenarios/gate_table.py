"""Tables of the verdicts, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from service.releases.gate.difference import Difference
from service.releases.gate.verdict import Mode, Outcome
from tests.scenarios.gate_draws import MARGIN, MODES, Trial
from tests.scenarios.gate_models import ScoredModel

TRUTHS: dict[Outcome, str] = {"promote": "better", "undecided": "neither shown", "reject": "worse by 0.01 or more"}
ERRORS_HEAD = (
    "| validation set | promoted although worse by more than 0.01 | the same, each image counted as independent "
    "| promoted although not better (`better`) | the same, each image counted as independent "
    "| undecided (`better`), decided by as many labels as asked for |"
)
VERDICTS: tuple[Outcome, ...] = ("promote", "reject", "undecided")


def models_table(models: Sequence[ScoredModel]) -> str:
    """List the models with their mIoU on all images outside training."""
    rows = (f"| {model.name} | {_miou(model):.3f} |" for model in models)
    return "\n".join(["| model | mIoU |", "|---|---|", *rows]) + "\n"


def pairs_table(pairs: Iterable[tuple[str, str, Difference]], trials: Sequence[Trial], units: int) -> str:
    """Verdicts about each pair, in the mode `better`, with one size of validation set; the better model first."""
    lines = ["| candidate | active | true difference | promote | reject | undecided |", "|---|---|---|---|---|---|"]
    for candidate, active, truth in pairs:
        own = [t for t in trials if (t.candidate, t.active, t.units) == (candidate, active, units)]
        cells = (f"{share(own, 'better', verdict)}" for verdict in VERDICTS)
        lines.append(f"| {candidate} | {active} | {100 * truth.value:+.1f} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def verdicts_table(trials: Sequence[Trial]) -> str:
    """Verdicts by mode, size of the validation set, and what the held-out images show."""
    lines = [
        "| mode | validation set | held-out images show | trials | promote | reject | undecided |",
        "|---|---|---|---|---|---|---|",
    ]
    for mode in MODES:
        for units in _sizes(trials):
            for truth, text in TRUTHS.items():
                own = [t for t in trials if t.units == units and t.true_outcome == truth]
                cells = " | ".join(share(own, mode, verdict) for verdict in VERDICTS)
                lines.append(f"| `{mode}` | {units} stretches | {text} | {len(own)} | {cells} |")
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
            _percent(sum(t.verdicts["not_worse"] == "promote" for t in worse), len(worse)),
            _percent(sum(t.by_image["not_worse"] == "promote" for t in worse), len(worse)),
            _percent(sum(t.verdicts["better"] == "promote" for t in not_better), len(not_better)),
            _percent(sum(t.by_image["better"] == "promote" for t in not_better), len(not_better)),
            _percent(sum(outcome != "undecided" for outcome in more), len(more)),
        )
        lines.append(f"| {units} stretches | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def share(trials: Sequence[Trial], mode: Mode, verdict: Outcome) -> str:
    """Share of a verdict, in percent."""
    return _percent(sum(trial.verdicts[mode] == verdict for trial in trials), len(trials))


def _sizes(trials: Iterable[Trial]) -> list[int]:
    return sorted({trial.units for trial in trials})


def _percent(count: int, total: int) -> str:
    return f"{100 * count / total:.1f} % of {total}" if total else "none"


def _miou(model: ScoredModel) -> float:
    counts = model.counts
    present = counts.truth_IK.any(axis=0)
    return float(counts.iou()[present].mean())
