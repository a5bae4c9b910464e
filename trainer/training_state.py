"""The context of a run, and its state: built, saved, and loaded for resuming."""

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
from trainer.events import Events
from trainer.initial_weights import load_initial_weights
from trainer.methods.class_thresholds import ClassThresholds
from trainer.models.encoders.weights import load_encoder_weights
from trainer.models.segmenter import Segmenter, build_segmenter
from trainer.optimizer import build_optimizer
from trainer.processes import Processes
from trainer.recipe_file import recipe_from_dict
from trainer.run_data import RunData
from trainer.run_error import RunError
from trainer.taxonomy import Taxonomy
from trainer.teacher import make_teacher


@dataclass(frozen=True, slots=True)
class RunContext:
    """What does not change in a run; outside the main process, `events` are discarded."""

    recipe: Recipe
    data: RunData
    out: Path
    events: Events
    processes: Processes


@dataclass(slots=True)
class TrainingState:
    """Networks, optimizer and progress of a run.

    Attributes:
        parallel_student: the student, wrapped if there are several processes.
        teacher: the student's moving average, which is evaluated and kept.
        class_weights_K: weight of each class in the labelled loss, float on the device; None = 1.
        thresholds: adaptive confidence thresholds per class, if enabled.
        step: number of completed steps.
        best: mIoU over the classes in the truth, and step, of the best evaluation so far; empty before the first.
        notices: what the user should know about the networks and their initial weights.
    """

    student: Segmenter
    parallel_student: nn.Module
    teacher: Segmenter
    optimizer: AdamW
    ignore_index: int
    class_weights_K: Tensor | None
    thresholds: ClassThresholds | None
    step: int
    best: dict[str, Any]
    notices: list[str]


def build_state(
    recipe: Recipe,
    taxonomy: Taxonomy,
    processes: Processes,
    class_weights_K: Tensor | None = None,
    *,
    resumed: bool = False,
) -> TrainingState:
    """Build student, teacher and optimizer, from pretrained encoder weights or the recipe's `init` checkpoint.

    `resumed` leaves the weights random for `load_training_state`. Raises EncoderError or CheckpointError if the network
    or its weights are not available; RunError or RecipeError if crop, window or processes do not fit the encoder.
    """
    student, notices = _build_student(recipe, taxonomy, processes, resumed=resumed)
    teacher = make_teacher(student)
    student = cast("Segmenter", processes.sync_batch_norms(student))
    if recipe.train.compile:
        # The head is not compiled: torch 2.13's inductor loses the gradient of its convolutions on a CPU.
        for network in (student, teacher):
            network.encoder.compile_blocks()
    thresholds = None
    if recipe.method != "supervised" and recipe.unimatch.adaptive_threshold:
        thresholds = ClassThresholds(len(taxonomy)).to(processes.device)
    return TrainingState(
        student=student,
        parallel_student=processes.data_parallel(student),
        teacher=teacher,
        optimizer=build_optimizer(student, recipe.train),
        ignore_index=taxonomy.ignore_index,
        class_weights_K=None if class_weights_K is None else class_weights_K.to(processes.device),
        thresholds=thresholds,
        step=0,
        best={},
        notices=notices,
    )


def _build_student(
    recipe: Recipe, taxonomy: Taxonomy, processes: Processes, *, resumed: bool
) -> tuple[Segmenter, list[str]]:
    torch.manual_seed(recipe.seed)
    student = build_segmenter(recipe.model, len(taxonomy))
    _check_sizes(recipe, student)
    _check_norms(recipe, student, processes)
    notices = [f"about the encoder {recipe.model.encoder}: {note}" for note in student.encoder.notes]
    if recipe.init and not resumed:
        notices.append(load_initial_weights(Path(recipe.init), student, taxonomy, recipe.init_classes))
    elif not resumed:
        load_encoder_weights(student.encoder, recipe.model.encoder, recipe.model.weights)
    # Channels-last is the fastest layout for oneDNN's and cuDNN's convolutions.
    student.to(processes.device).train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if recipe.train.freeze_encoder:
        student.encoder.freeze()
    if recipe.train.freeze_norms:
        student.encoder.freeze_norms()
    return student, notices


def resume_settings(recipe: Recipe) -> dict[str, Any]:
    """The settings that a resumed run must not change."""
    table = recipe.as_dict()
    for name in ("device", "compile", "accumulate", "log_every", "evaluate_every", "save_every", "keep", "report"):
        del table["train"][name]
    for name in ("root", "splits", "unlabelled_root", "workers"):
        del table["data"][name]
    del table["init"], table["init_classes"], table["model"]["weights"]
    return table


def save_training_state(state: TrainingState, out: Path, identity: Mapping[str, Any]) -> None:
    """Write the state to OUT/resume.pt, with `identity` to check when it is loaded."""
    parts = {name: part.state_dict() for name, part in _parts(state).items()}
    checkpoint.save_state(out / "resume.pt", {"step": state.step, "best": state.best} | parts | dict(identity))


def load_training_state(state: TrainingState, out: Path, identity: Mapping[str, Any]) -> None:
    """Load OUT/resume.pt into `state`. Raises RunError if it is missing or its `identity` differs."""
    path = out / "resume.pt"
    if not path.exists():
        raise RunError(f"{path}: there is no state to resume from; run without --resume")
    saved = checkpoint.load_state(path)
    saved["recipe"] = _of_this_version(saved["recipe"])
    for name, value in identity.items():
        if saved[name] != value:
            raise RunError(
                f"{path}: was saved with another {name}{_differences(saved[name], value)}; restore it, or start a new "
                "run in another --out"
            )
    for name, part in _parts(state).items():
        part.load_state_dict(saved[name])
    state.step, state.best = saved["step"], saved["best"]


def _of_this_version(settings: dict[str, Any]) -> dict[str, Any]:
    """`resume_settings` of an earlier version, which lack newer fields and may have other names."""
    return resume_settings(recipe_from_dict(settings | {"data": settings["data"] | {"root": ""}}))


def _parts(state: TrainingState) -> dict[str, Any]:
    parts = {"student": state.student, "teacher": state.teacher, "optimizer": state.optimizer}
    return parts | ({"thresholds": state.thresholds} if state.thresholds else {})


def _differences(saved: Any, given: Any, path: str = "") -> str:
    """The entries in which two nested tables differ, as " (train.steps: 9, was 8)"."""
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
        nearest = max(1, round(odd[0] / multiple)) * multiple
        raise RunError(
            f"data.crop has a side of {odd[0]}; with this encoder it must be a multiple of {multiple}: {nearest}"
        )
    if any(recipe.inference.window):
        check_window(recipe.inference.window, multiple)


def _check_norms(recipe: Recipe, student: Segmenter, processes: Processes) -> None:
    trained = not (recipe.train.freeze_norms or recipe.train.freeze_encoder)
    has_norms = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in student.encoder.modules())  # noqa: SLF001
    if processes.count > 1 and processes.device.type != "cuda" and trained and has_norms:
        raise RunError(
            "several processes on CPUs cannot synchronize batch norm; set train.freeze_norms = true, or start one "
            "process"
        )
