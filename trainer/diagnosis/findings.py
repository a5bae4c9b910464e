"""What is wrong with a run, in words, with the remedy: rules over figures that the run measures anyway."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trainer.counted import counted
from trainer.diagnosis.pixel_counts import Window
from trainer.evaluation.metrics import Scores

ONE_CLASS, NATURAL = 0.99, 0.9
"""Pseudo-labels are of one class if it has this share of them; that is natural if it has so much of the labels, too."""
NOTHING = 0.001
"""A threshold that a smaller share of the unlabelled pixels reaches selects nothing."""
LEAST_NORM_BATCH = 4
"""Rows of a forward pass below which the statistics of batch norm are too noisy."""
WIDE = 0.1
"""Width of the interval of the mIoU above which the validation images are too few to compare runs."""
MAX_NAMED = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault of a run: a stable identifier, what was measured, and what to do."""

    kind: str
    message: str
    remedy: str


def pseudo_label_findings(window: Window, names: Sequence[str], threshold: str) -> Iterator[Finding]:
    """Faults of the pseudo-labels in the last steps; `threshold` is the recipe's, in words."""
    confident, labelled = sum(window.pseudo_K), max(sum(window.labelled_K), 1)
    if not window.unlabelled:
        return
    if confident < NOTHING * window.unlabelled:
        yield Finding(
            "no pseudo-labels",
            f"{confident / window.unlabelled:.2%} of the unlabelled pixels reached the threshold {threshold} in "
            f"the last {window.steps} steps, so that the unlabelled images teach nothing",
            'lower unimatch.confidence_threshold or set it to "auto", or train longer if the loss still falls',
        )
        return
    largest = max(range(len(names)), key=window.pseudo_K.__getitem__)
    if window.pseudo_K[largest] >= ONE_CLASS * confident and window.labelled_K[largest] < NATURAL * labelled:
        yield Finding(
            "pseudo-labels of one class",
            f"{window.pseudo_K[largest] / confident:.1%} of the pseudo-labels in the last {window.steps} steps "
            f"are {names[largest]}, which has {window.labelled_K[largest] / labelled:.0%} of the labelled pixels",
            "label more images of the other classes, set loss.class_balance = 0.5 or unimatch.adaptive_threshold = "
            "true, or start with --set method=supervised and continue from its weights (init)",
        )


def norm_finding(rows: int) -> Finding | None:
    """Fault of a batch that is too small for batch norm; `rows` are those of one forward pass in one process."""
    if rows >= LEAST_NORM_BATCH:
        return None
    return Finding(
        "small batch",
        f"batch norm computes its statistics from {counted(rows, 'image', 'images')}, which are too few: the model can "
        "be much worse in evaluation than in training",
        "set train.freeze_norms = true, or raise train.batch_labelled and train.batch_unlabelled or lower "
        "train.accumulate",
    )


def score_findings(scores: Scores, split: str) -> Iterator[Finding]:
    """Faults of an evaluation: classes that are never predicted, too few images."""
    predicted_K = [sum(column) for column in zip(*scores.confusion, strict=True)]
    never = [name for name, pixels in zip(scores.per_class, predicted_K, strict=True) if not pixels]
    missed = [name for name in never if scores.in_truth[name]]
    if missed:
        yield Finding(
            "classes never predicted",
            f"the model predicts no pixel of {_listed(missed)}, which `{split}` shows",
            "label more images of these classes, set loss.class_balance = 0.5, or train longer",
        )
    low, high = scores.miou_interval or (0.0, 1.0)
    if high - low > WIDE:
        wanted = math.ceil(scores.images * ((high - low) / WIDE) ** 2)
        known = f"between {low:.2f} and {high:.2f} (95 %)" if scores.miou_interval else "unknown"
        yield Finding(
            "few val images",
            f"{counted(scores.images, 'image', 'images')} of `{split}` leave the mIoU of the classes in the masks "
            f"({scores.miou_truth_classes:.2f}) {known}: a smaller difference between two runs tells nothing",
            f"label more validation images; about {max(wanted, 10)} would do",
        )


def scene_finding(alike: float, others: float) -> Finding | None:
    """Fault of labels that show one scene, while most other images show others; see `scenes.scene_similarity`."""
    if alike < 0.9 or others > 0.7:
        return None
    return Finding(
        "one scene",
        f"the labelled images look alike (typical correlation {alike:.2f}), and the unlabelled or validation images do "
        f"not look like them ({others:.2f}): the labels may show one scene only",
        "label images of other scenes, not further frames of the same one",
    )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more
