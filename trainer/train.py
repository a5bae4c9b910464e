"""A training run: build, resume, loop, finalize."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tomli_w
import torch
from torch import Tensor

from trainer.allocator import keep_freed_memory
from trainer.atomic_write import atomic_write
from trainer.config import Recipe
from trainer.data.scan import class_frequency
from trainer.environment import describe_environment
from trainer.events import Events
from trainer.finalize import KEPT, finalize
from trainer.finite_check import FiniteCheck
from trainer.losses import class_weights
from trainer.optimizer import learning_rate
from trainer.processes import Processes, join_processes
from trainer.run_data import open_run_data, training_batches
from trainer.run_error import RunError, is_out_of_memory
from trainer.step import training_step
from trainer.stop_signals import Stopped, StopRequest, stop_on_signals
from trainer.training_state import (
    RunContext,
    TrainingState,
    build_state,
    load_training_state,
    resume_settings,
    save_training_state,
)
from trainer.validation import validate


def train(recipe: Recipe, out: Path, events: Events, *, resume: bool = False) -> Path:
    """Train a model in the run folder `out` and return the path of its checkpoint.

    `resume` continues from the state saved there. Raises Stopped after SIGTERM or Ctrl-C, with the state saved;
    DatasetError, TaxonomyError, ImageError, EncoderError, CheckpointError or RunError.
    """
    with join_processes(recipe.train.device) as processes, _out_of_memory_remedies(recipe, processes):
        _check_batch_sizes(recipe, processes)
        if processes.device.type == "cpu":
            keep_freed_memory()
        return _train(RunContext(recipe, open_run_data(recipe), out, events, processes), resume=resume)


def _train(context: RunContext, *, resume: bool) -> Path:
    recipe, data = context.recipe, context.data
    state = build_state(recipe, data.dataset.taxonomy, context.processes, _class_weights(context), resumed=resume)
    identity = {"recipe": resume_settings(recipe), "data_fingerprint": data.fingerprint}
    if resume:
        load_training_state(state, context.out, identity)
    _write_recipe(context)
    _emit_start(state, context)
    with stop_on_signals() as stop:
        _loop(state, context, stop, identity)
        scores = finalize(state, context, stop)
    result = scores.as_brief_dict() if scores else {"miou": None}
    context.events.emit("done", checkpoint=str(context.out / KEPT), **result)
    return context.out / KEPT


def _loop(state: TrainingState, context: RunContext, stop: StopRequest, identity: Mapping[str, Any]) -> None:
    recipe, processes = context.recipe, context.processes
    finite_check = FiniteCheck(processes.device)
    for batches in training_batches(recipe, context.data, processes, start=state.step):
        losses = training_step(state, recipe, batches, processes)
        finite_check.record(losses["loss"], state.step)
        last, log = state.step == recipe.train.steps, _is_due(state.step, recipe.train.log_every)
        # Read once: a signal during the save takes effect at the next step. Several processes read it only at logged
        # steps, where they synchronize.
        stopping = stop.requested if processes.count == 1 else log and processes.any(flag=stop.requested)
        evaluate = _is_due(state.step, recipe.train.evaluate_every) and not (last or stopping)
        save = last or stopping or _is_due(state.step, recipe.train.save_every)
        if log or evaluate or save:
            total = processes.total(torch.stack(list(losses.values())))
            values = dict(zip(losses, total.tolist(), strict=True))
            finite_check.check(values, state, context, weights=evaluate or save)
            lr = state.optimizer.param_groups[-1]["lr"]
            context.events.progress(state.step, recipe.train.steps, **values, lr=lr)
        if evaluate:
            validate(state, context)
        if save and processes.main:
            save_training_state(state, context.out, identity)
            context.events.emit("saved", step=state.step)
        if stopping:
            processes.barrier()
            raise Stopped(f"stopped at step {state.step}; --resume continues from there")


def _write_recipe(context: RunContext) -> None:
    if context.processes.main:
        context.out.mkdir(parents=True, exist_ok=True)
        with atomic_write(context.out / "recipe.toml") as file:
            file.write_text(tomli_w.dumps(context.recipe.as_dict()), encoding="utf-8")


def _emit_start(state: TrainingState, context: RunContext) -> None:
    train, data, processes = context.recipe.train, context.data, context.processes
    counts = {"labelled": len(data.labelled), "unlabelled": len(data.unlabelled), "processes": processes.count}
    context.events.emit(
        "start",
        steps=train.steps,
        step=state.step,
        device=str(processes.device),
        **counts,
        seed=context.recipe.seed,
        environment=describe_environment(processes.device),
    )
    for message in state.notices:
        context.events.emit("notice", message=message)
    if (scaled := learning_rate(train)) != train.lr_encoder:
        context.events.emit(
            "notice",
            message=f"the learning rate {train.lr_encoder:g} is for {train.lr_reference_batch} labelled images a "
            f"step; for {train.batch_labelled} it is scaled to {scaled:g}",
        )


def _check_batch_sizes(recipe: Recipe, processes: Processes) -> None:
    batches = {"batch_labelled": recipe.train.batch_labelled}
    if recipe.method != "supervised":
        batches["batch_unlabelled"] = recipe.train.batch_unlabelled
    for name, batch in batches.items():
        if batch < processes.count:
            raise RunError(
                f"train.{name} = {batch} is less than one image for each of {processes.count} processes; set it to "
                f"{processes.count} or more, or start fewer processes"
            )


def _class_weights(context: RunContext) -> Tensor | None:
    loss, data = context.recipe.loss, context.data
    if not loss.class_weights and not loss.class_balance:
        return None
    frequency_K = class_frequency(data.dataset, data.labelled)
    return class_weights(data.dataset.taxonomy.names, loss.class_weights, frequency_K, loss.class_balance)


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


@contextlib.contextmanager
def _out_of_memory_remedies(recipe: Recipe, processes: Processes) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        train, remedies = recipe.train, []
        if train.accumulate < train.batch_labelled + train.batch_unlabelled:
            half = f"--set train.accumulate={2 * train.accumulate} (it is {train.accumulate}), for the same result"
            remedies.append(half)
        if train.precision == "fp32":
            remedies.append("--set train.precision=bf16")
        remedies.append(
            f"a smaller train.batch_labelled ({train.batch_labelled}), train.batch_unlabelled "
            f"({train.batch_unlabelled}), data.crop ({list(recipe.data.crop)}) or model.encoder"
        )
        raise RunError(f"{processes.device} has too little memory for a step. Try " + "; or ".join(remedies)) from error
