"""One optimizer step, whatever the method."""

# R rows of a student batch, B of them labelled, K classes, h w the head's own size

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
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
    # Processes come first, so that none draws in this step what another draws in the next.
    seed = step_seed(recipe.seed, run.step * processes.count + processes.rank)
    parts = micro_batches(batch, recipe.train.accumulate)
    if recipe.loss.kind == "ohem" and recipe.train.accumulate > 1:
        torch.manual_seed(seed)
        # An autocast of its own: the next one must not meet weights that were cast without gradients.
        with autocast:
            parts = judged_together(run, parts, recipe)
    torch.manual_seed(seed)
    run.optimizer.zero_grad(set_to_none=True)
    losses = torch.zeros(2, device=processes.device)
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
    align_corners, whole = run.student.head.align_corners, part.labelled
    if recipe.loss.kind == "ohem" and recipe.train.accumulate == 1:
        (part,) = _hard_alone([part], [logits_RKhw[:whole].detach()], recipe, align_corners=align_corners)
    weight_RHW = part.weight_RHW
    factor_R = torch.full((len(weight_RHW),), part.scale[1], device=weight_RHW.device)
    factor_R[:whole] = part.scale[0]
    # Over several processes the backward pass averages, where the weights ask for the sum.
    loss_R, gradient_RKhw = chunked_cross_entropy(
        logits_RKhw.detach(), part.label_RHW, weight_RHW, factor_R * processes, align_corners=align_corners
    )
    logits_RKhw.backward(gradient_RKhw)
    return torch.stack([loss_R[:whole].sum(), loss_R[whole:].sum()])


@torch.no_grad()
def judged_together(run: Run, parts: Sequence[StudentBatch], recipe: Recipe) -> list[StudentBatch]:
    """Micro-batches with OHEM's weights, for which all labelled pixels of this process are judged together.

    This costs one forward pass more. It runs over the very rows, and in the training mode, of the passes that follow,
    so that with the same random state each pixel is judged by the logits that it is learned from. The statistics that
    batch norms keep stay as they were.

    With batch norm the step is still not that of one whole batch: each micro-batch is normalised by its own statistics,
    here as in every step with `train.accumulate`.
    """
    with _buffers_kept(run.student):
        logits = [
            run.student(part.image_RCHW, part.dropout, part.head_dropout, upsample=False)[: part.labelled]
            for part in parts
        ]
    return _hard_alone(parts, logits, recipe, align_corners=run.student.head.align_corners)


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


def _hard_alone(
    parts: Sequence[StudentBatch], logits: Sequence[Tensor], recipe: Recipe, *, align_corners: bool
) -> list[StudentBatch]:
    """Parts with OHEM's weights, under one bound; `logits` are those of their labelled rows, float [B,K,h,w] each."""
    counts = [part.labelled for part in parts]
    if not sum(counts):
        return list(parts)
    hard_BHW = ohem_weights(
        torch.cat(list(logits)),
        torch.cat([part.label_RHW[: part.labelled] for part in parts]),
        torch.cat([part.weight_RHW[: part.labelled] for part in parts]),
        threshold=recipe.loss.ohem_threshold,
        min_kept=recipe.loss.ohem_min_kept,
        align_corners=align_corners,
    )
    return [
        replace(part, weight_RHW=torch.cat([own_BHW, part.weight_RHW[part.labelled :]]))
        for part, own_BHW in zip(parts, torch.split(hard_BHW, counts), strict=True)
    ]


@contextmanager
def _buffers_kept(module: torch.nn.Module) -> Iterator[None]:
    """Buffers that change inside are as before afterwards."""
    before = [buffer.clone() for buffer in module.buffers()]
    yield
    for buffer, old in zip(module.buffers(), before, strict=True):
        buffer.copy_(old)


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
