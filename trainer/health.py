"""A loss that is not finite ends the run, and what caused it is kept."""

import math

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from trainer import checkpoint
from trainer.batches import batches
from trainer.job import Job
from trainer.models.segmenter import Segmenter
from trainer.run import Run
from trainer.run_error import RunError


class Health:
    """Watches every step's loss on the device, without waiting for it."""

    def __init__(self, device: torch.device) -> None:
        self._first_bad = torch.full((), torch.iinfo(torch.int64).max, device=device)

    def watch(self, loss: Tensor, step: int) -> None:
        """Note the step if its loss is not finite and none before it was not."""
        self._first_bad = torch.where(loss.isfinite(), self._first_bad, self._first_bad.clamp(max=step))

    def check(self, values: dict[str, float], run: Run, job: Job, *, weights: bool) -> None:
        """Raise RunError when a loss was not finite; its batch is then in RUN/nonfinite-0.pt, one for each process.

        Called before a state or a model is saved, so that neither is ever made of such weights.

        Args:
            values: the losses of the step that was done last, over all processes.
            run: whose step it was.
            job: the run's.
            weights: look at the student's weights too, which the step has changed since.
        """
        first = int(job.processes.least(self._first_bad))
        finite = all(map(math.isfinite, values.values())) and first > run.step
        if finite and not (weights and _ruined(run.student)):
            return
        first = min(first, run.step)
        path = job.out / f"nonfinite-{job.processes.rank}.pt"
        # Batches are a function of seed and step, so the one that did it can be had again.
        labelled, unlabelled = next(batches(job.recipe, job.data, job.processes, start=first - 1))
        views = unlabelled._asdict() if unlabelled else {}
        checkpoint.save_state(path, {"step": first, "labelled": labelled._asdict(), "unlabelled": views})
        raise RunError(
            f"loss or weights are not finite at step {first}; the batch is in {path}. Lower train.lr_encoder or "
            "train.lr_head_factor, or set train.clip_norm, and run again in another --out"
        )


def _ruined(student: Segmenter) -> bool:
    norm = get_total_norm([parameter.detach() for parameter in student.parameters()])
    return not bool(norm.isfinite())
