"""A training run: build, resume, loop, finish."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import tomli_w
import torch
from torch import Tensor
from torch.optim import AdamW

from trainer import checkpoint
from trainer.config import Recipe
from trainer.data.folder import FolderDataset, Sample, check_disjoint, check_pairs, fingerprint, open_dataset
from trainer.data.loaders import (
    Crop,
    LabelledBatch,
    LabelledPairs,
    UnlabelledBatch,
    UnlabelledViews,
    labelled_loader,
    unlabelled_loader,
)
from trainer.evaluate import evaluate
from trainer.events import Events
from trainer.methods.supervised import supervised_loss
from trainer.methods.unimatch_v2 import unimatch_v2_loss
from trainer.metrics import Scores
from trainer.models.segmenter import Segmenter, build_segmenter
from trainer.models.weights import load_encoder_weights
from trainer.optimizer import build_optimizer, set_learning_rate
from trainer.schedules import ema_decay
from trainer.teacher import make_teacher, update_teacher


class RunError(ValueError):
    """A run that cannot start or go on; the message says what to do."""


class Stopped(Exception):  # noqa: N818 (no error: the state is saved and --resume goes on)
    """The run was asked to stop and has saved its state."""


@dataclass(frozen=True, slots=True)
class Splits:
    """The samples of a run, by role."""

    labelled: tuple[Sample, ...]
    unlabelled: tuple[Sample, ...]
    val: tuple[Sample, ...]


@dataclass(slots=True)
class Run:
    """Everything that changes while a run goes on."""

    student: Segmenter
    teacher: Segmenter
    optimizer: AdamW
    step: int = 0


def train(recipe: Recipe, out: Path, events: Events, *, resume: bool = False) -> Path:
    """Train by a recipe and return the checkpoint's path.

    Args:
        recipe: what to do.
        out: the run folder.
        events: where progress is told.
        resume: go on from the state that an earlier run left in `out`.

    Raises:
        DatasetError, TaxonomyError, ImageError, EncoderError, CheckpointError, RunError: with the remedy in the
            message.
        Stopped: SIGTERM or Ctrl-C came; the state is saved.
    """
    device = pick_device(recipe.train.device)
    dataset, splits = open_splits(recipe)
    data_fingerprint = fingerprint(splits.labelled, splits.unlabelled)

    torch.manual_seed(recipe.seed)
    run = build(recipe, dataset, device)
    if resume:
        load_run(run, out)
    _write_recipe(recipe, out)
    events.emit(
        "start",
        steps=recipe.train.steps,
        step=run.step,
        device=str(device),
        labelled=len(splits.labelled),
        unlabelled=len(splits.unlabelled),
    )

    labelled, unlabelled = batches(recipe, dataset, splits, start=run.step)
    with stop_on_signals() as stop:
        while run.step < recipe.train.steps:
            losses = step(run, recipe, next(labelled), next(unlabelled, None), dataset.taxonomy.ignore_index)
            if _due(run.step, recipe.train.log_every):
                _report(events, run, recipe, losses)
            if stop.asked and run.step < recipe.train.steps:
                save_run(run, out)
                raise Stopped(f"stopped at step {run.step}; --resume goes on from there")
            if _due(run.step, recipe.train.save_every):
                save_run(run, out)
            if _due(run.step, recipe.train.evaluate_every) and run.step < recipe.train.steps:
                judge(run, recipe, dataset, splits, events)

    found = judge(run, recipe, dataset, splits, events)
    path = out / "model.safetensors"
    metrics = found.as_dict() | {"split": recipe.data.val} if found else {}
    checkpoint.save(
        path, run.teacher, dataset.taxonomy, metrics=metrics, recipe=recipe, data_fingerprint=data_fingerprint
    )
    (out / "resume.pt").unlink(missing_ok=True)
    events.emit("done", checkpoint=str(path), miou=found.miou if found else None)
    return path


def open_splits(recipe: Recipe) -> tuple[FolderDataset, Splits]:
    """Open the data set and look at every image that the run will use, before the first step."""
    dataset = open_dataset(Path(recipe.data.root))
    semi = recipe.method != "supervised"
    splits = Splits(
        labelled=dataset.split(recipe.data.labelled),
        unlabelled=dataset.split(recipe.data.unlabelled) if semi else (),
        val=dataset.split(recipe.data.val) if recipe.data.val else (),
    )
    check_disjoint(
        {recipe.data.labelled: splits.labelled, recipe.data.unlabelled: splits.unlabelled, recipe.data.val: splits.val}
    )
    check_pairs(dataset, (*splits.labelled, *splits.val))
    return dataset, splits


def build(recipe: Recipe, dataset: FolderDataset, device: torch.device) -> Run:
    """Student, teacher and optimizer, from the encoder's weights or from the recipe's `init` checkpoint."""
    student = build_segmenter(recipe.model, len(dataset.taxonomy))
    if recipe.init:
        checkpoint.load_weights(Path(recipe.init), student, dataset.taxonomy)
    else:
        load_encoder_weights(student.encoder, recipe.model.encoder, recipe.model.weights)
    # Convolutions of both oneDNN and cuDNN are fastest on channels-last tensors; the results are those of either
    # layout.
    student = student.to(device).train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Run(student, make_teacher(student), build_optimizer(student, recipe.train))


def batches(
    recipe: Recipe, dataset: FolderDataset, splits: Splits, *, start: int
) -> tuple[Iterator[LabelledBatch], Iterator[UnlabelledBatch]]:
    """The run's batches from step `start` on; the second iterator is empty for `supervised`."""
    crop = Crop(recipe.data.crop, recipe.data.scale, recipe.seed)
    options = {"start": start, "steps": recipe.train.steps, "seed": recipe.seed, "workers": recipe.data.workers}
    pairs = LabelledPairs(dataset, splits.labelled, crop)
    labelled = labelled_loader(pairs, len(splits.labelled), recipe.train.batch_labelled, **options)
    if recipe.method == "supervised":
        return labelled, iter(())
    views = UnlabelledViews(dataset, splits.unlabelled, crop)
    return labelled, unlabelled_loader(views, len(splits.unlabelled), recipe.train.batch_unlabelled, **options)


def step(
    run: Run, recipe: Recipe, labelled: LabelledBatch, unlabelled: UnlabelledBatch | None, ignore_index: int
) -> dict[str, Tensor]:
    """One optimizer step; returns the losses, on the device."""
    device = next(run.student.parameters()).device
    set_learning_rate(run.optimizer, run.step, recipe.train)
    labelled = LabelledBatch(*(tensor.to(device) for tensor in labelled))
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=uses_bf16(recipe, device)):
        if unlabelled is None:
            losses = supervised_loss(run.student, labelled, ignore_index=ignore_index)
        else:
            losses = unimatch_v2_loss(
                run.student,
                run.teacher,
                labelled,
                UnlabelledBatch(*(tensor.to(device) for tensor in unlabelled)),
                config=recipe.unimatch,
                ignore_index=ignore_index,
                generator=step_generator(recipe.seed, run.step),
            )
    run.optimizer.zero_grad(set_to_none=True)
    losses["loss"].backward()  # type: ignore[no-untyped-call]
    run.optimizer.step()
    update_teacher(run.teacher, run.student, ema_decay(run.step, recipe.train.ema_decay))
    run.step += 1
    return losses


def step_generator(seed: int, step: int) -> torch.Generator:
    """The CPU generator of one step: a function of seed and step, so that no random state has to be saved."""
    return torch.Generator().manual_seed((seed << 32) + step)


def judge(run: Run, recipe: Recipe, dataset: FolderDataset, splits: Splits, events: Events) -> Scores | None:
    """Evaluate the teacher, whose weights are the ones that are kept, on the run's `val` split."""
    if not splits.val:
        return None
    found = evaluate(
        run.teacher, dataset, splits.val, long_side=recipe.inference.long_side, workers=recipe.data.workers
    )
    events.emit("evaluation", step=run.step, **found.as_dict())
    return found


def save_run(run: Run, out: Path) -> None:
    """Write the state from which `load_run` goes on."""
    state = {
        "step": run.step,
        "student": run.student.state_dict(),
        "teacher": run.teacher.state_dict(),
        "optimizer": run.optimizer.state_dict(),
    }
    checkpoint.save_state(out / "resume.pt", state)


def load_run(run: Run, out: Path) -> None:
    """Go on from the state in `out`. Raises RunError when there is none."""
    path = out / "resume.pt"
    if not path.exists():
        raise RunError(f"{path}: there is no state to resume from; run without --resume")
    state = checkpoint.load_state(path)
    run.student.load_state_dict(state["student"])
    run.teacher.load_state_dict(state["teacher"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.step = state["step"]


def pick_device(name: str) -> torch.device:
    """The device of that name; "auto" is the first GPU, else the CPU."""
    if name != "auto":
        return torch.device(name)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def uses_bf16(recipe: Recipe, device: torch.device) -> bool:
    """Whether the network computes in bf16."""
    if recipe.train.precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return recipe.train.precision == "bf16"


@dataclass(slots=True)
class Stop:
    """Whether somebody asked the run to stop."""

    asked: bool = False


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Within it, SIGTERM and Ctrl-C only set `asked`: the loop saves its state at the end of the step."""
    stop = Stop()

    def ask(_signal: int, _frame: FrameType | None) -> None:
        stop.asked = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _report(events: Events, run: Run, recipe: Recipe, losses: dict[str, Tensor]) -> None:
    values = dict(zip(losses, torch.stack(list(losses.values())).tolist(), strict=True))
    if not all(value == value and abs(value) != float("inf") for value in values.values()):  # noqa: PLR0124 (nan is not itself)
        raise RunError(
            f"the loss is not finite at step {run.step}; lower train.lr_encoder or train.lr_head_factor and run again"
        )
    events.progress(run.step, recipe.train.steps, **values)


def _write_recipe(recipe: Recipe, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "recipe.toml").write_text(tomli_w.dumps(recipe.as_dict()), encoding="utf-8")
