"""The end of the report: what to do next, with commands, from the figures of the run."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from trainer.config import Recipe
from trainer.diagnosis.findings import WIDE
from trainer.evaluation.metrics import Scores
from trainer.report.advice import trend
from trainer.report.class_table import ClassRow
from trainer.report.history import History

CLASSES, LOW_IOU = 3, 0.6
"""Number of classes to label next, and the IoU below which more labels of a class are worth it."""
LARGER = {
    "efficientnet_lite0": "vit_small_patch14_dinov2 (own/small_gpu.toml, on a GPU)",
    "vit_small_patch14_dinov2": "vit_base_patch14_dinov2 (own/large_gpu.toml)",
    "vit_base_patch14_dinov2": "vit_large_patch14_dinov2",
}
"""The next larger encoder of the recipes."""


@dataclass(frozen=True, slots=True)
class Step:
    """Something to do, the figures that speak for it, and a command, "" without one."""

    title: str
    reason: str
    command: str = ""


def next_steps(recipe: Recipe, rows: Sequence[ClassRow], scores: Scores | None, history: History) -> list[Step]:
    """What to do next, most useful first: measure, label, train longer, take a larger encoder."""
    if not scores:
        reason = "without them nobody knows how good the model is, nor which evaluation is the best"
        return [Step("Label validation images, 10 or more", reason)]
    found = [step for step in (_more_val(scores), _labels(rows)) if step]
    sentence = trend(history.miou())
    if "still rising" in sentence:
        longer = f"--set train.steps={2 * recipe.train.steps}"
        found.append(Step("Train longer", sentence, f"python -m trainer train RUN_DIR/recipe.toml {longer} --out NEW"))
    elif "levelled off" in sentence and recipe.model.encoder in LARGER:
        found.append(Step(f"Take a larger encoder: {LARGER[recipe.model.encoder]}", sentence))
    if recipe.method == "supervised":
        reason = "this run learnt from labels only; photographs without labels cost nothing"
        unlabelled = "--set method=unimatch_v2 --set data.unlabelled_root=PHOTOGRAPHS --set 'data.unlabelled=\"*\"'"
        command = f"python -m trainer train RUN_DIR/recipe.toml {unlabelled} --out NEW"
        found.append(Step("Add unlabelled images", reason, command))
    serve = "python -m exporter export RUN_DIR/model.safetensors --out my-bundle --name my-model"
    return [*found, Step("Serve the model", "the service takes a bundle", serve)]


def _more_val(scores: Scores) -> Step | None:
    low, high = scores.miou_interval or (0.0, 1.0)
    if high - low <= WIDE:
        return None
    wanted = max(10, math.ceil(scores.images * ((high - low) / WIDE) ** 2))
    reason = f"{scores.images} of them leave the mIoU anywhere between {low:.2f} and {high:.2f}"
    return Step(f"Label more validation images, about {wanted} in all", reason)


def _labels(rows: Sequence[ClassRow]) -> Step | None:
    """The classes that lose most of the mIoU, rare ones first."""
    weak = [(row.iou, row.labelled, row.name) for row in rows if row.iou is not None and row.in_truth]
    weak = sorted(figures for figures in weak if figures[0] < LOW_IOU)[:CLASSES]
    unseen = [row.name for row in rows if not row.labelled]
    if not weak and not unseen:
        return None
    parts = [f"{name} has IoU {iou:.2f} with {share:.1%} of the labelled pixels" for iou, share, name in weak]
    parts += [f"no label shows {name}" for name in unseen[:CLASSES]]
    names = dict.fromkeys([*(name for _, _, name in weak), *unseen[:CLASSES]])
    return Step(f"Label more images of {', '.join(names)}", "; ".join(parts))
