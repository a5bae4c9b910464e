"""Validation during a run: score the EMA teacher, whose weights become the model."""

import time
from pathlib import Path
from typing import Any

import torch

from trainer import checkpoint
from trainer.evaluation.evaluate import evaluate
from trainer.evaluation.metrics import Scores
from trainer.events import Events
from trainer.methods.class_thresholds import ClassThresholds
from trainer.models.segmenter import Segmenter
from trainer.run_error import RunError, is_out_of_memory
from trainer.training_state import RunContext, TrainingState

BEST = "best.safetensors"
REPORT_EVERY_S = 60.0
"""Interval of `evaluating` events: a reader of the events must be able to tell a long evaluation from a hung one."""


def validate(state: TrainingState, context: RunContext) -> None:
    """Evaluate the teacher on the `val` split and save its weights if they are the best so far.

    The best has the highest mIoU over the classes in the truth: one stray pixel of another class lowers `miou` by 1/K.
    """
    if not context.data.val:
        return
    scores = validation_scores(state.teacher, context, full=False)
    context.events.emit("evaluation", step=state.step, **as_event(scores))
    if state.thresholds:
        _decide_threshold(state.thresholds, scores, context)
    found = scores.miou_truth_classes
    if context.recipe.train.keep == "best" and found > state.best.get("miou", -1.0):
        state.best = {"miou": found, "step": state.step}
        if context.processes.main:
            save_checkpoint(context.out / BEST, state.teacher, context, scores)


def as_event(scores: Scores) -> dict[str, Any]:
    """Fields of an `evaluation` event; `reliability` is that of the confident pixels."""
    return scores.as_dict() | ({} if scores.reliability is None else {"reliability": scores.reliability})


def _decide_threshold(thresholds: ClassThresholds, scores: Scores, context: RunContext) -> None:
    threshold, before = context.recipe.unimatch.fixed_threshold, bool(thresholds.fixed)
    thresholds.decide(scores.reliability, threshold)
    if before == bool(thresholds.fixed):
        return
    found = "no pixel" if scores.reliability is None else f"{scores.reliability:.1%} of the pixels"
    now = "the fixed threshold" if before is False else "a threshold for each class"
    context.events.emit(
        "notice",
        message=f"{found} of `{context.recipe.data.val}` with a confidence of {threshold:g} or more "
        f"{'is' if scores.reliability is None else 'are'} right: from now on, {now} selects pseudo-labels",
    )


def validation_scores(model: Segmenter, context: RunContext, *, full: bool) -> Scores:
    """Scores of a network on the `val` split, by all processes together.

    `full` adds boundary IoU and calibration error. Raises RunError if the device has too little memory for an image.
    """
    recipe, processes = context.recipe, context.processes
    try:
        # Validation images differ in size, and torch.compile would recompile for each size.
        with torch.compiler.set_stance("force_eager"):
            return evaluate(
                model,
                context.data.dataset,
                context.data.val,
                inference=recipe.inference,
                workers=recipe.data.workers,
                shard=(processes.rank, processes.count),
                total=processes.total,
                full=full,
                threshold=None if recipe.method == "supervised" else recipe.unimatch.fixed_threshold,
                progress=_Reporter(context.events),
            )
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise RunError(
            f"{processes.device} has too little memory for a validation image; set inference.window = "
            f"{list(recipe.data.crop)}, or a smaller inference.long_side"
        ) from error


def save_checkpoint(path: Path, model: Segmenter, context: RunContext, scores: Scores | None) -> None:
    """Write a checkpoint with the run's recipe, data fingerprint and scores."""
    checkpoint.save(
        path,
        model,
        context.data.dataset.taxonomy,
        metrics=scores.as_dict() | {"split": context.recipe.data.val} if scores else {},
        recipe=context.recipe,
        data_fingerprint=context.data.fingerprint,
    )


class _Reporter:
    """Emits an `evaluating` event every `REPORT_EVERY_S`; a short evaluation emits none."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._emitted_at = time.monotonic()

    def __call__(self, done: int, images: int) -> None:
        """Note that `done` of the `images` of this process are evaluated."""
        if time.monotonic() - self._emitted_at >= REPORT_EVERY_S:
            self._emitted_at = time.monotonic()
            self._events.emit("evaluating", images_done=done, images=images)
