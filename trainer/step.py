"""One optimizer step, whatever the method."""

# R rows of a student batch, B of them labelled, K classes, h w the head's own size

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

from trainer.config import Recipe
from trainer.data.loaders import LabelledBatch, UnlabelledBatch
from trainer.devices import uses_bf16
from trainer.losses import chunked_cross_entropy, ohem_weights
from trainer.methods.context import Context
from trainer.methods.registry import METHODS
from trainer.methods.student_batch import StudentBatch
from trainer.optimizer import set_learning_rate
from trainer.processes import Processes
from trainer.run import Run
from trainer.schedules import ema_decay
from trainer.teacher import update_teacher


def step(
    run: Run, recipe: Recipe, labelled: LabelledBatch, unlabelled: UnlabelledBatch | None, processes: Processes
) -> dict[str, Tensor]:
    """One optimizer step; what this process's rows add to the losses, on the device.

    Nothing in here waits for the device.
    """
    set_learning_rate(run.optimizer, run.step, recipe.train)
    autocast = torch.autocast(processes.device.type, dtype=torch.bfloat16, enabled=uses_bf16(recipe, processes.device))
    with autocast:
        batch = student_batch(run, recipe, labelled, unlabelled, processes)
    # What the network draws by itself, such as stochastic depth, also depends on seed, step and process alone.
    torch.manual_seed(step_seed(recipe.seed, run.step) + processes.rank)
    run.optimizer.zero_grad(set_to_none=True)
    losses = torch.zeros(2, device=processes.device)
    parts = micro_batches(batch, recipe.train.accumulate)
    for index, part in enumerate(parts):
        with autocast, _gradients(run.synchronised, meet=index == len(parts) - 1):
            losses += learn(run, part, recipe, processes.count)
    if recipe.train.clip_norm:
        clip_grad_norm_(run.student.parameters(), recipe.train.clip_norm)
    run.optimizer.step()
    update_teacher(run.teacher, run.student, ema_decay(run.step, recipe.train.ema_decay))
    run.step += 1
    return reported(batch, losses)


def student_batch(
    run: Run, recipe: Recipe, labelled: LabelledBatch, unlabelled: UnlabelledBatch | None, processes: Processes
) -> StudentBatch:
    """What the method asks of the student in this step: a function of teacher, batches, seed and step."""
    context = Context(
        teacher=run.teacher,
        channels=run.student.encoder.channels,
        head_width=run.student.head.features,
        recipe=recipe,
        ignore_index=run.ignore_index,
        class_weights_K=run.class_weights_K,
        generator=torch.Generator().manual_seed(step_seed(recipe.seed, run.step)),
        own=processes.share(recipe.train.batch_unlabelled),
        total=processes.total,
        thresholds=run.thresholds,
    )
    device = processes.device
    labelled = LabelledBatch(*(tensor.to(device, non_blocking=True) for tensor in labelled))
    if unlabelled is not None:
        unlabelled = UnlabelledBatch(*(tensor.to(device, non_blocking=True) for tensor in unlabelled))
    return METHODS[recipe.method](labelled, unlabelled, context)


def learn(run: Run, part: StudentBatch, recipe: Recipe, processes: int) -> Tensor:
    """Forward and backward of one micro-batch; its labelled and unlabelled loss, float [2]."""
    logits_RKhw = run.synchronised(part.image_RCHW, part.dropout, part.head_dropout, upsample=False)
    align_corners = run.student.head.align_corners
    weight_RHW, whole = part.weight_RHW, part.labelled
    if recipe.loss.kind == "ohem" and whole:
        hard_BHW = ohem_weights(
            logits_RKhw[:whole].detach(),
            part.label_RHW[:whole],
            weight_RHW[:whole],
            threshold=recipe.loss.ohem_threshold,
            min_kept=recipe.loss.ohem_min_kept // recipe.train.accumulate,
            align_corners=align_corners,
        )
        weight_RHW = torch.cat([hard_BHW, weight_RHW[whole:]])
    factor_R = torch.full((len(weight_RHW),), part.scale[1], device=weight_RHW.device)
    factor_R[:whole] = part.scale[0]
    # Over several processes the backward pass averages, where the weights ask for the sum.
    loss_R, gradient_RKhw = chunked_cross_entropy(
        logits_RKhw.detach(), part.label_RHW, weight_RHW, factor_R * processes, align_corners=align_corners
    )
    logits_RKhw.backward(gradient_RKhw)
    return torch.stack([loss_R[:whole].sum(), loss_R[whole:].sum()])


def micro_batches(batch: StudentBatch, count: int) -> list[StudentBatch]:
    """The batch in `count` parts that hold the same mixture of labelled rows and views; fewer where rows are few."""
    labelled, views = torch.arange(batch.labelled), torch.arange(batch.labelled, len(batch.image_RCHW))
    return [batch] if count == 1 else list(_parts(batch, labelled, views, count))


def step_seed(seed: int, step: int) -> int:
    """The seed of one step: a function of the run's seed and the step, so that no random state has to be saved."""
    return (seed << 32) + step


def reported(batch: StudentBatch, losses: Tensor) -> dict[str, Tensor]:
    """The losses under the names that events have; "confident" is the part of the unlabelled pixels that count."""
    labelled, unlabelled = losses.unbind()
    if batch.scale[1] == 0:
        return {"loss": labelled * batch.scale[0]}
    return {
        "loss": batch.scale[0] * labelled + batch.scale[1] * unlabelled,
        "loss_labelled": labelled,
        "loss_unlabelled": unlabelled,
        "confident": batch.weight_RHW[batch.labelled :].sum(),
    }


def _parts(batch: StudentBatch, labelled: Tensor, views: Tensor, count: int) -> Iterator[StudentBatch]:
    for index in range(count):
        rows = torch.cat([labelled[index::count], views[index::count]])
        if len(rows) == 0:
            return
        on_device = rows.to(batch.image_RCHW.device, non_blocking=True)
        yield replace(
            batch,
            image_RCHW=batch.image_RCHW[on_device],
            label_RHW=batch.label_RHW[on_device],
            weight_RHW=batch.weight_RHW[on_device],
            labelled=len(labelled[index::count]),
            dropout=batch.dropout and tuple(mask_RC[on_device] for mask_RC in batch.dropout),
            head_dropout=None if batch.head_dropout is None else batch.head_dropout[on_device],
        )


def _gradients(student: torch.nn.Module, *, meet: bool) -> AbstractContextManager[None]:
    """Processes add up their gradients once a step, in the backward pass of the last micro-batch."""
    if meet or not isinstance(student, DistributedDataParallel):
        return nullcontext()
    return student.no_sync()
