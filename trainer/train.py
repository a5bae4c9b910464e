"""A training run: build, resume, loop, finish."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tomli_w
import torch
from torch import Tensor

from trainer.allocator import keep_freed_memory
from trainer.batches import batches
from trainer.config import Recipe
from trainer.data.scan import class_frequency
from trainer.events import Events
from trainer.finish import KEPT, finish
from trainer.health import Health
from trainer.job import Job
from trainer.judge import judge
from trainer.losses import class_weights
from trainer.open_data import open_data
from trainer.optimizer import learning_rate
from trainer.processes import Processes, join_processes
from trainer.replacing import replacing
from trainer.run import Run, build, lasting, load_run, save_run
from trainer.run_error import RunError, is_out_of_memory
from trainer.step import step
from trainer.stopping import Stop, Stopped, stop_on_signals


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
    with join_processes(recipe.train.device) as processes, _explained(recipe, processes):
        _check_shares(recipe, processes)
        if processes.device.type == "cpu":
            keep_freed_memory()
        return _train(Job(recipe, open_data(recipe), out, events, processes), resume=resume)


def _train(job: Job, *, resume: bool) -> Path:
    run = build(job.recipe, job.data.dataset.taxonomy, job.processes, _class_weights(job), resumed=resume)
    identity = {"recipe": lasting(job.recipe), "data_fingerprint": job.data.fingerprint}
    if resume:
        load_run(run, job.out, identity)
    _begin(run, job)
    with stop_on_signals() as stop:
        _loop(run, job, stop, identity)
        found = finish(run, job, stop)
    job.events.emit("done", checkpoint=str(job.out / KEPT), miou=found.miou if found else None)
    return job.out / KEPT


def _loop(run: Run, job: Job, stop: Stop, identity: Mapping[str, Any]) -> None:
    """Step until the last; report, save, judge and stop as the recipe and the signals say."""
    recipe, processes, health = job.recipe, job.processes, Health(job.processes.device)
    for labelled, unlabelled in batches(recipe, job.data, processes, start=run.step):
        losses = step(run, recipe, labelled, unlabelled, processes)
        health.watch(losses["loss"], run.step)
        last, log = run.step == recipe.train.steps, _due(run.step, recipe.train.log_every)
        # Looked at once, so that a signal that comes while the state is saved waits for the next look. Several
        # processes look where they meet anyway.
        stopping = stop.asked if processes.count == 1 else log and processes.anywhere(flag=stop.asked)
        judged = _due(run.step, recipe.train.evaluate_every) and not (last or stopping)
        save = last or stopping or _due(run.step, recipe.train.save_every)
        if log or judged or save:
            values = _summed(losses, processes)
            health.check(values, run, job, weights=judged or save)
            job.events.progress(run.step, recipe.train.steps, **values, lr=run.optimizer.param_groups[-1]["lr"])
        if judged:
            judge(run, job)
        if save and processes.main:
            save_run(run, job.out, identity)
        if stopping:
            processes.wait()
            raise Stopped(f"stopped at step {run.step}; --resume goes on from there")


def _begin(run: Run, job: Job) -> None:
    """Write the recipe down, and tell what is about to happen."""
    train, data = job.recipe.train, job.data
    if job.processes.main:
        job.out.mkdir(parents=True, exist_ok=True)
        with replacing(job.out / "recipe.toml") as file:
            file.write_text(tomli_w.dumps(job.recipe.as_dict()), encoding="utf-8")
    counts = {"labelled": len(data.labelled), "unlabelled": len(data.unlabelled), "processes": job.processes.count}
    job.events.emit("start", steps=train.steps, step=run.step, device=str(job.processes.device), **counts)
    if (scaled := learning_rate(train)) != train.lr_encoder:
        job.events.emit(
            "notice",
            message=f"the learning rate {train.lr_encoder:g} belongs to {train.lr_reference_batch} labelled images a "
            f"step; with {train.batch_labelled} it is {scaled:g}",
        )


def _check_shares(recipe: Recipe, processes: Processes) -> None:
    batches_by_name = {"batch_labelled": recipe.train.batch_labelled}
    if recipe.method != "supervised":
        batches_by_name["batch_unlabelled"] = recipe.train.batch_unlabelled
    for name, batch in batches_by_name.items():
        if batch < processes.count:
            raise RunError(
                f"train.{name} = {batch} is shared among {processes.count} processes, and each needs one image at "
                f"least; set it to {processes.count} or more, or start fewer processes"
            )


def _class_weights(job: Job) -> Tensor | None:
    loss, data = job.recipe.loss, job.data
    if not loss.class_weights and not loss.class_balance:
        return None
    frequency_K = class_frequency(data.dataset, data.labelled)
    return class_weights(data.dataset.taxonomy.names, loss.class_weights, frequency_K, loss.class_balance)


def _summed(losses: dict[str, Tensor], processes: Processes) -> dict[str, float]:
    """The losses of all processes together, as numbers: here the host waits for the device."""
    together = processes.total(torch.stack(list(losses.values())))
    return dict(zip(losses, together.tolist(), strict=True))


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


@contextlib.contextmanager
def _explained(recipe: Recipe, processes: Processes) -> Iterator[None]:
    """Out of memory: what to change, not a traceback."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        train = recipe.train
        remedies = [
            (
                f"a smaller train.batch_labelled ({train.batch_labelled}), train.batch_unlabelled "
                f"({train.batch_unlabelled}), data.crop ({list(recipe.data.crop)}) or model.encoder"
            )
        ]
        if train.precision == "fp32":
            remedies.insert(0, "--set train.precision=bf16")
        if train.accumulate < train.batch_labelled + train.batch_unlabelled:
            parts = f"--set train.accumulate={2 * train.accumulate} (it is {train.accumulate}): the same step in parts"
            remedies.insert(0, parts)
        raise RunError(f"{processes.device} has too little memory for a step. Try " + "; or ".join(remedies)) from error
