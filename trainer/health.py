"""A loss that is not finite ends the run, and what caused it is kept."""

import math

import torch
from torch import Tensor

from trainer import checkpoint
from trainer.batches import batches
from trainer.job import Job
from trainer.run_error import RunError


class Health:
    """Watches every step's loss on the device, without waiting for it."""

    def __init__(self, device: torch.device) -> None:
        self._first_bad = torch.full((), torch.iinfo(torch.int64).max, device=device)

    def watch(self, loss: Tensor, step: int) -> None:
        """Note the step if its loss is not finite and none before it was not."""
        self._first_bad = torch.where(loss.isfinite(), self._first_bad, self._first_bad.clamp(max=step))

    def check(self, values: dict[str, float], step: int, job: Job) -> None:
        """Raise RunError when a loss was not finite; its batch is then in RUN/nonfinite-0.pt, one for each process.

        Called before a state or a model is saved, so that neither is ever made of such weights.

        Args:
            values: the losses of step `step`, over all processes.
            step: the step that was done last.
            job: the run's.
        """
        first = int(self._first_bad)
        if all(map(math.isfinite, values.values())) and first > step:
            return
        first = min(first, step)
        path = job.out / f"nonfinite-{job.processes.rank}.pt"
        # Batches are a function of seed and step, so the one that did it can be had again.
        labelled, unlabelled = next(batches(job.recipe, job.data, job.processes, start=first - 1))
        views = unlabelled._asdict() if unlabelled else {}
        checkpoint.save_state(
            path, {"step": first, "losses": values, "labelled": labelled._asdict(), "unlabelled": views}
        )
        raise RunError(
            f"the loss is not finite at step {first}; its batch is in {path}. Lower train.lr_encoder or "
            "train.lr_head_factor, or set train.clip_norm, and run again"
        )
