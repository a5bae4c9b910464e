"""Stop the run at a non-finite loss or weight, and save the batch that caused it."""

import math

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from trainer import checkpoint
from trainer.run_data import training_batches
from trainer.run_error import RunError
from trainer.training_state import RunContext, TrainingState


class FiniteCheck:
    """Records on the device, without synchronization, the first step whose loss is not finite."""

    def __init__(self, device: torch.device) -> None:
        self._first_bad = torch.full((), torch.iinfo(torch.int64).max, device=device)

    def record(self, loss: Tensor, step: int) -> None:
        """Record `step` if its loss is the first that is not finite."""
        self._first_bad = torch.where(loss.isfinite(), self._first_bad, self._first_bad.clamp(max=step))

    def check(self, values: dict[str, float], state: TrainingState, context: RunContext, *, weights: bool) -> None:
        """Raise RunError if a loss was not finite, after saving its batch as RUN/nonfinite-RANK.pt in each process.

        Call it before saving a state or a model. `values` are the last step's losses, summed over all processes;
        `weights` also checks the student's weights, which that step changed after its loss.
        """
        first = int(context.processes.minimum(self._first_bad))
        finite = all(map(math.isfinite, values.values())) and first > state.step
        if finite and weights:
            norm = get_total_norm([parameter.detach() for parameter in state.student.parameters()])
            finite = bool(norm.isfinite())
        if finite:
            return
        first = min(first, state.step)
        path = context.out / f"nonfinite-{context.processes.rank}.pt"
        # A batch is a function of seed and step, so it can be loaded again.
        labelled, unlabelled = next(training_batches(context.recipe, context.data, context.processes, start=first - 1))
        views = unlabelled._asdict() if unlabelled else {}
        checkpoint.save_state(path, {"step": first, "labelled": labelled._asdict(), "unlabelled": views})
        raise RunError(
            f"loss or weights are not finite at step {first}; the batch is in {path}. Lower train.lr_encoder or "
            "train.lr_head_factor, or set train.clip_norm, and run again in another --out"
        )
