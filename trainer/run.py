"""What changes while a run goes on: how it is built, saved and taken up again."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from trainer import checkpoint
from trainer.config import Recipe
from trainer.evaluation.sliding import check_window
from trainer.methods.class_thresholds import ClassThresholds
from trainer.models.blocks import compile_blocks
from trainer.models.segmenter import Segmenter, build_segmenter
from trainer.models.weights import load_encoder_weights
from trainer.optimizer import build_optimizer
from trainer.processes import Processes
from trainer.run_error import RunError
from trainer.taxonomy import Taxonomy
from trainer.teacher import make_teacher


@dataclass(slots=True)
class Run:
    """A run under way.

    Attributes:
        student: the network that is trained.
        synchronised: the student as all processes train it together; the student itself where there is one.
        teacher: its moving average; the weights that are reported and kept.
        optimizer: of the student.
        ignore_index: the mask value that does not count.
        class_weights_K: weight of each class in the labelled loss, float on the device; None = 1.
        thresholds: of the pseudo-labels, class by class, where the recipe asks for them.
        step: how many steps are done.
        best: the best evaluation so far, with its step; empty before the first.
    """

    student: Segmenter
    synchronised: nn.Module
    teacher: Segmenter
    optimizer: AdamW
    ignore_index: int
    class_weights_K: Tensor | None
    thresholds: ClassThresholds | None
    step: int
    best: dict[str, Any]


def build(
    recipe: Recipe,
    taxonomy: Taxonomy,
    processes: Processes,
    class_weights_K: Tensor | None = None,
    *,
    resumed: bool = False,
) -> Run:
    """Student, teacher and optimizer, from the encoder's weights or from the recipe's `init` checkpoint.

    Args:
        recipe: the run's.
        taxonomy: the classes.
        processes: this one among its fellows.
        class_weights_K: see Run.
        resumed: weights come from a saved state, and are not looked for elsewhere.

    Raises:
        EncoderError, CheckpointError: the network or its weights cannot be had.
        RunError, RecipeError: the crop, the window or the number of processes does not fit the encoder.
    """
    torch.manual_seed(recipe.seed)
    student = build_segmenter(recipe.model, len(taxonomy))
    _check_sizes(recipe, student)
    _check_norms(recipe, student, processes)
    if recipe.init and not resumed:
        checkpoint.load_weights(Path(recipe.init), student, taxonomy)
    elif not resumed:
        load_encoder_weights(student.encoder, recipe.model.encoder, recipe.model.weights)
    # Convolutions of both oneDNN and cuDNN are fastest on channels-last tensors; the results are those of either
    # layout.
    student = student.to(processes.device).train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if recipe.train.freeze_encoder:
        student.encoder.freeze()
    if recipe.train.freeze_norms:
        student.encoder.freeze_norms()
    teacher = make_teacher(student)
    student = cast("Segmenter", processes.joint_norms(student))
    if recipe.train.compile:
        # Not the head: torch 2.13's inductor loses the gradient of its convolutions on a CPU.
        for network in (student, teacher):
            compile_blocks(network.encoder)
    thresholds = None
    if recipe.method != "supervised" and recipe.unimatch.adaptive_threshold:
        thresholds = ClassThresholds(len(taxonomy)).to(processes.device)
    return Run(
        student=student,
        synchronised=processes.synchronised(student),
        teacher=teacher,
        optimizer=build_optimizer(student, recipe.train),
        ignore_index=taxonomy.ignore_index,
        class_weights_K=None if class_weights_K is None else class_weights_K.to(processes.device),
        thresholds=thresholds,
        step=0,
        best={},
    )


def lasting(recipe: Recipe) -> dict[str, Any]:
    """What of a recipe may not change between a run's start and its resumption."""
    table = recipe.as_dict()
    for name in ("device", "compile", "accumulate", "log_every", "evaluate_every", "save_every", "keep", "report"):
        del table["train"][name]
    for name in ("root", "splits", "unlabelled_root", "workers"):
        del table["data"][name]
    del table["init"], table["model"]["weights"]
    return table


def save_run(run: Run, out: Path, identity: Mapping[str, Any]) -> None:
    """Write the state from which `load_run` goes on."""
    state = {
        "step": run.step,
        "best": run.best,
        "student": run.student.state_dict(),
        "teacher": run.teacher.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "thresholds": run.thresholds.state_dict() if run.thresholds else {},
    }
    checkpoint.save_state(out / "resume.pt", state | dict(identity))


def load_run(run: Run, out: Path, identity: Mapping[str, Any]) -> None:
    """Go on from the state in `out`. Raises RunError for none, or one of another recipe or other data."""
    path = out / "resume.pt"
    if not path.exists():
        raise RunError(f"{path}: there is no state to resume from; run without --resume")
    state = checkpoint.load_state(path)
    for name, value in identity.items():
        if state[name] != value:
            raise RunError(
                f"{path}: was saved with another {name}{_differences(state[name], value)}; restore it, or start anew "
                "in another --out"
            )
    run.student.load_state_dict(state["student"])
    run.teacher.load_state_dict(state["teacher"])
    run.optimizer.load_state_dict(state["optimizer"])
    if run.thresholds:
        run.thresholds.load_state_dict(state["thresholds"])
    run.step, run.best = state["step"], state["best"]


def _differences(saved: Any, given: Any, path: str = "") -> str:
    """Where two tables differ, as " (train.steps: 9, was 8)"."""
    if not isinstance(saved, dict) or not isinstance(given, dict):
        return f" ({path}: {given!r}, was {saved!r})" if path else ""
    keys = sorted(saved.keys() | given.keys())
    return "".join(
        _differences(saved.get(key), given.get(key), f"{path}.{key}" if path else key)
        for key in keys
        if saved.get(key) != given.get(key)
    )


def _check_sizes(recipe: Recipe, student: Segmenter) -> None:
    multiple = student.size_multiple
    if odd := [side for side in recipe.data.crop if side % multiple]:
        near = max(1, round(odd[0] / multiple)) * multiple
        raise RunError(
            f"data.crop has a side of {odd[0]}; with this encoder it must be a multiple of {multiple}: {near}"
        )
    if any(recipe.inference.window):
        check_window(recipe.inference.window, multiple)


def _check_norms(recipe: Recipe, student: Segmenter, processes: Processes) -> None:
    """Batch norms of several processes agree on GPUs, where they are joined, or not at all."""
    free = not (recipe.train.freeze_norms or recipe.train.freeze_encoder)
    normed = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in student.encoder.modules())  # noqa: SLF001
    if processes.count > 1 and processes.device.type != "cuda" and free and normed:
        raise RunError(
            "several processes on CPUs would each have batch norms of their own; set train.freeze_norms = true, or "
            "start one process"
        )
