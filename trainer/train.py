"""A training run: build, resume, loop, finish."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tomli_w
import torch
from torch import Tensor

from trainer import checkpoint
from trainer.config import Recipe
from trainer.data.dataset import Sample, SegmentationDataset, check_disjoint, fingerprint
from trainer.data.folder import check_images
from trainer.data.layouts import open_dataset
from trainer.data.loaders import (
    Crop,
    LabelledBatch,
    LabelledPairs,
    UnlabelledBatch,
    UnlabelledViews,
    labelled_loader,
    unlabelled_loader,
)
from trainer.devices import pick_device, uses_bf16
from trainer.evaluate import evaluate
from trainer.events import Events
from trainer.methods.supervised import supervised_loss
from trainer.methods.unimatch_v2 import unimatch_v2_loss
from trainer.metrics import Scores
from trainer.optimizer import set_learning_rate
from trainer.run import Run, RunError, build, lasting, load_run, save_run
from trainer.schedules import ema_decay
from trainer.stopping import stop_on_signals
from trainer.teacher import update_teacher


class Stopped(Exception):  # noqa: N818 (no error: the state is saved and --resume goes on)
    """The run was asked to stop and has saved its state."""


@dataclass(frozen=True, slots=True)
class Splits:
    """The samples of a run, by role."""

    labelled: tuple[Sample, ...]
    unlabelled: tuple[Sample, ...]
    val: tuple[Sample, ...]


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
    data_fingerprint = fingerprint((dataset, splits.labelled), (dataset, splits.unlabelled))

    torch.manual_seed(recipe.seed)
    run = build(recipe, dataset, device)
    identity = {"recipe": lasting(recipe), "data_fingerprint": data_fingerprint}
    if resume:
        load_run(run, out, identity)
    _write_recipe(recipe, out)
    counts = {"labelled": len(splits.labelled), "unlabelled": len(splits.unlabelled)}
    events.emit("start", steps=recipe.train.steps, step=run.step, device=str(device), **counts)

    labelled, unlabelled = batches(recipe, dataset, splits, start=run.step)
    with stop_on_signals() as stop:
        while run.step < recipe.train.steps:
            losses = step(run, recipe, next(labelled), next(unlabelled, None), dataset.taxonomy.ignore_index)
            # Looked at once: a signal that comes while the state is saved waits for the next step.
            last, stopping = run.step == recipe.train.steps, stop.asked
            save = stopping or _due(run.step, recipe.train.save_every)
            if last or save or _due(run.step, recipe.train.log_every):
                events.progress(run.step, recipe.train.steps, **_finite(losses, run.step))
            if save and not last:
                save_run(run, out, identity)
            if stopping and not last:
                raise Stopped(f"stopped at step {run.step}; --resume goes on from there")
            if _due(run.step, recipe.train.evaluate_every) and not last:
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


def open_splits(recipe: Recipe) -> tuple[SegmentationDataset, Splits]:
    """Open the data set and look at every image that the run will use, before the first step."""
    dataset = open_dataset(Path(recipe.data.root))
    semi = recipe.method != "supervised"
    splits = Splits(
        labelled=dataset.split(recipe.data.labelled),
        unlabelled=dataset.split(recipe.data.unlabelled) if semi else (),
        val=dataset.split(recipe.data.val) if recipe.data.val else (),
    )
    names = (recipe.data.labelled, recipe.data.unlabelled, recipe.data.val)
    check_disjoint(*zip(names, (splits.labelled, splits.unlabelled, splits.val), strict=True))
    check_images(dataset, (*splits.labelled, *splits.val), splits.unlabelled)
    return dataset, splits


def batches(
    recipe: Recipe, dataset: SegmentationDataset, splits: Splits, *, start: int
) -> tuple[Iterator[LabelledBatch], Iterator[UnlabelledBatch]]:
    """The run's batches from step `start` on; the second iterator is empty for `supervised`."""
    crop = Crop(recipe.data.crop, recipe.data.scale, recipe.seed, recipe.inference.long_side)
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
    # What the network draws by itself, such as stochastic depth, also depends on seed and step alone.
    torch.manual_seed(step_seed(recipe.seed, run.step))
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
                generator=torch.Generator().manual_seed(step_seed(recipe.seed, run.step)),
            )
    run.optimizer.zero_grad(set_to_none=True)
    losses["loss"].backward()  # type: ignore[no-untyped-call]
    run.optimizer.step()
    update_teacher(run.teacher, run.student, ema_decay(run.step, recipe.train.ema_decay))
    run.step += 1
    return losses


def step_seed(seed: int, step: int) -> int:
    """The seed of one step: a function of the run's seed and the step, so that no random state has to be saved."""
    return (seed << 32) + step


def judge(run: Run, recipe: Recipe, dataset: SegmentationDataset, splits: Splits, events: Events) -> Scores | None:
    """Evaluate the teacher, whose weights are the ones that are kept, on the run's `val` split."""
    if not splits.val:
        return None
    found = evaluate(
        run.teacher, dataset, splits.val, long_side=recipe.inference.long_side, workers=recipe.data.workers
    )
    events.emit("evaluation", step=run.step, **found.as_dict())
    return found


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _finite(losses: dict[str, Tensor], step: int) -> dict[str, float]:
    """The losses as numbers. Raises RunError when one is not finite: before it is saved as a state or a model."""
    values = dict(zip(losses, torch.stack(list(losses.values())).tolist(), strict=True))
    if not all(map(math.isfinite, values.values())):
        raise RunError(
            f"the loss is not finite at step {step}; lower train.lr_encoder or train.lr_head_factor and run again"
        )
    return values


def _write_recipe(recipe: Recipe, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "recipe.toml").write_text(tomli_w.dumps(recipe.as_dict()), encoding="utf-8")
