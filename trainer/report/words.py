"""What a person wants to hear first: how good the model is, whether it still improves, and what to do next."""

from collections.abc import Sequence

from trainer.evaluation.audit import Audit
from trainer.evaluation.calibration import Bin
from trainer.evaluation.metrics import Scores
from trainer.report.classes import ClassRow, Confusion
from trainer.report.history import Points

WEAK, RARE, FEW = 0.2, 0.01, 5
"""Below WEAK a class is as good as not found; below RARE its part of the labelled pixels is small; FEW are named."""
RISING, FALLING = 0.005, 0.01
"""Differences of mIoU that are more than the noise of an evaluation."""
UNCALIBRATED, IMPURE, STARVED = 0.1, 0.8, 0.2


def trend(points: Points) -> str:
    """Whether the mIoU still rises, from the evaluations of a run."""
    if len(points) < 3:
        return "Too few evaluations to say whether it still improves: set train.evaluate_every."
    (best_step, best), (last_step, last) = max(points, key=lambda point: point[1]), points[-1]
    earlier = max(value for step, value in points if step <= max(points[0][0], last_step * 2 / 3))
    if last < best - FALLING:
        return f"It was best at step {best_step:g} with {best:.3f} and then fell to {last:.3f}: more steps do not help."
    if last > earlier + RISING:
        return f"It is still rising: {last - earlier:+.3f} in the last third of the run. More steps are likely to help."
    return f"It has levelled off: {last - earlier:+.3f} in the last third of the run."


def advice(
    rows: Sequence[ClassRow], scores: Scores | None, confusions: Sequence[Confusion], audit: Audit | None
) -> list[str]:
    """What to do next, the most useful first."""
    found = [*_weak_classes(rows, confusions), *_absent_classes(rows, scores)]
    if audit:
        found += _pseudo_labels(rows, audit)
    if scores and scores.ece is not None and scores.ece > UNCALIBRATED:
        found.append(
            f"The confidence is {_direction(scores.calibration)} by {scores.ece:.0%} on average: "
            "do not read it as a probability."
        )
    return found or [
        "Nothing stands out. More labelled images of your own scenes are the surest way to a better model."
    ]


def _weak_classes(rows: Sequence[ClassRow], confusions: Sequence[Confusion]) -> list[str]:
    weak = sorted((row.iou, row.labelled, row.name) for row in rows if row.iou is not None and row.iou < WEAK)
    found = []
    for iou, labelled, name in weak[:FEW]:
        if labelled < RARE:
            found.append(
                f"{name}: IoU {iou:.2f}, and only {labelled:.2%} of the labelled pixels. Label more images of it."
            )
            continue
        worst = next((each for each in confusions if each.truth == name), None)
        taken = f" {worst.part:.0%} of it is taken for {worst.prediction}." if worst else ""
        found.append(
            f"{name}: IoU {iou:.2f} although it has {labelled:.1%} of the labelled pixels.{taken} Look at its labels."
        )
    if len(weak) > FEW:
        found.append(f"In all, {len(weak)} classes are below an IoU of {WEAK:g}: see the table.")
    return found


def _absent_classes(rows: Sequence[ClassRow], scores: Scores | None) -> list[str]:
    absent = [row.name for row in rows if row.iou is None] if scores else []
    if not absent:
        return []
    named = ", ".join(absent[:FEW]) + (f" and {len(absent) - FEW} more" if len(absent) > FEW else "")
    return [f"Not in the validation images, so nobody knows how good it is: {named}. Add labelled images of it there."]


def _pseudo_labels(rows: Sequence[ClassRow], audit: Audit) -> list[str]:
    found = []
    if audit.purity is not None and audit.purity < IMPURE:
        found.append(
            f"Only {audit.purity:.0%} of the confident pseudo-labels are right: raise unimatch.confidence_threshold "
            f"(it is {audit.threshold:g}), or label more images first."
        )
    elif audit.mask_ratio is not None and audit.mask_ratio < STARVED:
        found.append(
            f"Only {audit.mask_ratio:.0%} of the unlabelled pixels are confident enough to teach: train longer, or "
            f"lower unimatch.confidence_threshold (it is {audit.threshold:g})."
        )
    harmful = [row.name for row in rows if row.purity is not None and row.purity < 0.5]
    if harmful:
        named = ", ".join(harmful[:FEW]) + (f" and {len(harmful) - FEW} more" if len(harmful) > FEW else "")
        found.append(f"Confident pseudo-labels that are wrong more often than right: {named}. Label some by hand.")
    return found


def _direction(bins: Sequence[Bin]) -> str:
    lean = sum(
        each.pixels * (each.confidence - each.accuracy)
        for each in bins
        if each.confidence is not None and each.accuracy is not None
    )
    return "too high" if lean > 0 else "too low"
