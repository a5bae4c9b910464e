"""Text of the report: whether the model still improves, and what is weak."""

from collections.abc import Sequence

from trainer.evaluation.audit import Audit
from trainer.evaluation.calibration import Bin
from trainer.evaluation.metrics import Scores
from trainer.report.class_table import ClassRow, Confusion
from trainer.report.history import Points

WEAK_IOU = 0.2
"""Classes with a lower IoU are reported."""
RARE = 0.01
"""Classes with a smaller share of the labelled pixels need more labels."""
MAX_NAMED = 5
"""Classes named in one line."""
RISING, FALLING = 0.005, 0.01
"""Smallest change of the mIoU that counts as a rise or a fall; less may be noise."""
MAX_CALIBRATION_ERROR, MIN_PURITY, MIN_MASK_RATIO = 0.1, 0.8, 0.2
"""Figures beyond these limits are reported."""


def trend(points: Points) -> str:
    """Describe whether the mIoU of a run still rises."""
    if len(points) < 3:
        return "Too few evaluations to tell whether the model still improves: lower train.evaluate_every."
    (best_step, best), (last_step, last) = max(points, key=lambda point: point[1]), points[-1]
    earlier = max(value for step, value in points if step <= max(points[0][0], last_step * 2 / 3))
    if last < best - FALLING:
        return (
            f"The mIoU was best at step {best_step:g} with {best:.3f}, then fell to {last:.3f}: more steps do not help."
        )
    change = f"{last - earlier:+.3f} compared with the best of the first two thirds"
    if last > earlier + RISING:
        return f"The mIoU is still rising: {change}. More steps will probably help."
    return f"The mIoU has levelled off: {change}."


def advice(
    rows: Sequence[ClassRow], scores: Scores | None, confusions: Sequence[Confusion], audit: Audit | None
) -> list[str]:
    """What is weak and why, most important first."""
    found = [*_weak_classes(rows, confusions), *_absent_classes(rows, scores)]
    if audit:
        found += _pseudo_labels(rows, audit)
    if scores and scores.ece is not None and scores.ece > MAX_CALIBRATION_ERROR:
        found.append(
            f"Confidence and accuracy differ by {scores.ece:.0%} on average, and the confidence is mostly "
            f"{_direction(scores.calibration)}: do not use it as a probability."
        )
    return found or ["No weakness found. More labelled images of your own scenes are the best way to a better model."]


def _weak_classes(rows: Sequence[ClassRow], confusions: Sequence[Confusion]) -> list[str]:
    shown = [(row.iou, row.labelled, row.name) for row in rows if row.iou is not None and row.in_truth]
    weak = sorted(figures for figures in shown if figures[0] < WEAK_IOU)
    found = []
    for iou, labelled, name in weak[:MAX_NAMED]:
        if labelled < RARE:
            found.append(
                f"{name}: IoU {iou:.2f} with only {labelled:.2%} of the labelled pixels. Label more images of it."
            )
            continue
        worst = next((each for each in confusions if each.truth == name), None)
        confused = f" {worst.share:.0%} of it is predicted as {worst.prediction}." if worst else ""
        found.append(
            f"{name}: IoU {iou:.2f} although it has {labelled:.1%} of the labelled pixels.{confused} Check its labels."
        )
    if len(weak) > MAX_NAMED:
        found.append(f"{len(weak)} classes have an IoU below {WEAK_IOU:g}: see the table.")
    return found


def _absent_classes(rows: Sequence[ClassRow], scores: Scores | None) -> list[str]:
    if not scores:
        return []
    reasons = {
        "Not measured, because no validation image shows them": [row.name for row in rows if row.iou is None],
        "Counted as IoU 0, because they are predicted and no validation image shows them": [
            row.name for row in rows if row.iou is not None and not row.in_truth
        ],
    }
    return [f"{reason}: {_named(names)}. Add validation images that do." for reason, names in reasons.items() if names]


def _pseudo_labels(rows: Sequence[ClassRow], audit: Audit) -> list[str]:
    found = []
    if audit.purity is not None and audit.purity < MIN_PURITY:
        found.append(
            f"Only {audit.purity:.0%} of the confident pseudo-labels are right: raise unimatch.confidence_threshold "
            f"(now {audit.threshold:g}), or label more images."
        )
    elif audit.mask_ratio is not None and audit.mask_ratio < MIN_MASK_RATIO:
        found.append(
            f"Only {audit.mask_ratio:.0%} of the unlabelled pixels are confident enough for training: train longer, "
            f"or lower unimatch.confidence_threshold (now {audit.threshold:g})."
        )
    harmful = [row.name for row in rows if row.purity is not None and row.purity < 0.5]
    if harmful:
        found.append(
            f"Confident pseudo-labels are wrong more often than right: {_named(harmful)}. Label more images of them."
        )
    return found


def _named(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more


def _direction(bins: Sequence[Bin]) -> str:
    excess = sum(
        each.pixels * (each.confidence - each.accuracy)
        for each in bins
        if each.confidence is not None and each.accuracy is not None
    )
    return "too high" if excess > 0 else "too low"
