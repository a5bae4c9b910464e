"""Watch a run, and emit a `warning` event for each fault that is found, once."""

from collections.abc import Iterable

from torch import nn

from trainer.config import Recipe
from trainer.diagnosis.findings import (
    Finding,
    norm_finding,
    pseudo_label_findings,
    scene_finding,
    score_findings,
)
from trainer.diagnosis.scenes import scene_similarity
from trainer.evaluation.metrics import Scores
from trainer.training_state import RunContext, TrainingState

WINDOW, LEAST_STEPS = 50, 20
"""Steps between two looks at the pseudo-labels, and steps that the last look needs."""
SETTLED = 0.2
"""Share of the run before which missing pseudo-labels are natural."""


class Watch:
    """Emits the warnings of a run."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._emitted: set[str] = set()

    def start(self, state: TrainingState) -> None:
        """Look at the batch and the labelled images. Raises ImageError."""
        context = self._context
        if _trains_norms(context.recipe, state):
            self._emit([norm_finding(rows_of_forward(context.recipe, context.processes.count))])
        if context.processes.main:
            data = context.data
            others = (data.unlabelled_dataset, data.unlabelled) if data.unlabelled else (data.dataset, data.val)
            self._emit([scene_finding(*scene_similarity((data.dataset, data.labelled), others))])

    def step(self, state: TrainingState) -> None:
        """Look at the pseudo-labels, if it is time; all processes must call it."""
        counts, steps = state.pixel_counts, self._context.recipe.train.steps
        last = state.step == steps and counts.steps >= LEAST_STEPS
        if counts.steps < WINDOW and not last:
            return
        window = counts.take(self._context.processes.total)
        if state.step >= SETTLED * steps:
            settings = self._context.recipe.unimatch
            names = self._context.data.dataset.taxonomy.names
            self._emit(pseudo_label_findings(window, names, str(settings.confidence_threshold)))

    def scores(self, scores: Scores) -> None:
        """Look at the scores of the model."""
        self._emit(score_findings(scores, self._context.recipe.data.val))

    def _emit(self, findings: Iterable[Finding | None]) -> None:
        for finding in findings:
            if finding and finding.kind not in self._emitted:
                self._emitted.add(finding.kind)
                self._context.events.emit("warning", kind=finding.kind, message=finding.message, remedy=finding.remedy)


def rows_of_forward(recipe: Recipe, processes: int) -> int:
    """Images of one forward pass of the student in one process."""
    streams = {"supervised": 0, "fixmatch": 1, "unimatch_v1": 3, "unimatch_v2": recipe.unimatch.streams}[recipe.method]
    rows = recipe.train.batch_labelled + streams * recipe.train.batch_unlabelled
    return rows // (recipe.train.accumulate * processes)


def _trains_norms(recipe: Recipe, state: TrainingState) -> bool:
    frozen = recipe.train.freeze_norms or recipe.train.freeze_encoder
    norms = nn.modules.batchnorm._BatchNorm  # noqa: SLF001 (the base class of all of them)
    return not frozen and any(isinstance(module, norms) for module in state.student.encoder.modules())
