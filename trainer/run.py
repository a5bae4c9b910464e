"""What changes while a run goes on: how it is built, saved and taken up again."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.optim import AdamW

from trainer import checkpoint
from trainer.config import Recipe
from trainer.data.dataset import SegmentationDataset
from trainer.models.segmenter import Segmenter, build_segmenter
from trainer.models.weights import load_encoder_weights
from trainer.optimizer import build_optimizer
from trainer.teacher import make_teacher


class RunError(ValueError):
    """A run that cannot start or go on; the message says what to do."""


@dataclass(slots=True)
class Run:
    """Everything that changes while a run goes on."""

    student: Segmenter
    teacher: Segmenter
    optimizer: AdamW
    step: int = 0


def build(recipe: Recipe, dataset: SegmentationDataset, device: torch.device) -> Run:
    """Student, teacher and optimizer, from the encoder's weights or from the recipe's `init` checkpoint."""
    student = build_segmenter(recipe.model, len(dataset.taxonomy))
    if odd := [side for side in recipe.data.crop if side % student.size_multiple]:
        multiple = student.size_multiple
        near = max(1, round(odd[0] / multiple)) * multiple
        raise RunError(
            f"data.crop has a side of {odd[0]}; with this encoder it must be a multiple of {multiple}: {near}"
        )
    if recipe.init:
        checkpoint.load_weights(Path(recipe.init), student, dataset.taxonomy)
    else:
        load_encoder_weights(student.encoder, recipe.model.encoder, recipe.model.weights)
    # Convolutions of both oneDNN and cuDNN are fastest on channels-last tensors; the results are those of either
    # layout.
    student = student.to(device).train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Run(student, make_teacher(student), build_optimizer(student, recipe.train))


def lasting(recipe: Recipe) -> dict[str, Any]:
    """What of a recipe may not change between a run's start and its resumption."""
    table = recipe.as_dict()
    for name in ("device", "log_every", "evaluate_every", "save_every"):
        del table["train"][name]
    del table["data"]["root"], table["data"]["workers"], table["init"]
    return table


def save_run(run: Run, out: Path, identity: dict[str, Any]) -> None:
    """Write the state from which `load_run` goes on."""
    state = {
        "step": run.step,
        "student": run.student.state_dict(),
        "teacher": run.teacher.state_dict(),
        "optimizer": run.optimizer.state_dict(),
    }
    checkpoint.save_state(out / "resume.pt", state | identity)


def load_run(run: Run, out: Path, identity: dict[str, Any]) -> None:
    """Go on from the state in `out`. Raises RunError for none, or one of another recipe or other data."""
    path = out / "resume.pt"
    if not path.exists():
        raise RunError(f"{path}: there is no state to resume from; run without --resume")
    state = checkpoint.load_state(path)
    for name, value in identity.items():
        if state[name] != value:
            raise RunError(f"{path}: was saved with another {name}; restore it, or start anew in another --out")
    run.student.load_state_dict(state["student"])
    run.teacher.load_state_dict(state["teacher"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.step = state["step"]
