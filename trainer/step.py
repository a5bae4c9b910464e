"""One optimizer step, for every method."""

# R rows of a student batch, B of them labelled, K classes, h w the size of the head's logits

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

from trainer.config import Method, Recipe
from trainer.data.batches.loaders import LabelledBatch, UnlabelledBatch
from trainer.losses import chunked_cross_entropy, ohem_weights
from trainer.methods.fixmatch import fixmatch
from trainer.methods.interface import StepContext, StudentBatch
from trainer.methods.supervised import supervised
from trainer.methods.unimatch_v1 import unimatch_v1
from trainer.methods.unimatch_v2 import unimatch_v2
from trainer.optimizer import set_learning_rate
from trainer.processes import Processes
from trainer.run_data import Batches
from trainer.teacher import ema_decay, update_teacher
from trainer.training_state import TrainingState

METHODS: dict[Method, Callable[[LabelledBatch, UnlabelledBatch | None, StepContext], StudentBatch]] = {
    "supervised": supervised,
    "fixmatch": fixmatch,
    "unimatch_v1": unimatch_v1,
    "unimatch_v2": unimatch_v2,
}


def training_step(state: TrainingState, recipe: Recipe, batches: Batches, processes: Processes) -> dict[str, Tensor]:
    """Run one optimizer step; returns this process's part of the losses, on the device, without waiting for it."""
    set_learning_rate(state.optimizer, state.step, recipe.train)
    autocast = torch.autocast(processes.device.type, dtype=torch.bfloat16, enabled=uses_bf16(recipe, processes.device))
    with autocast:
        batch = build_student_batch(state, recipe, batches, processes)
    state.pixel_counts.add(batch)
    # One seed per step and rank, for the network's random draws (stochastic depth).
    seed = step_seed(recipe.seed, state.step * processes.count + processes.rank)
    parts = micro_batches(batch, recipe.train.accumulate)
    if recipe.loss.kind == "ohem" and recipe.train.accumulate > 1:
        torch.manual_seed(seed)
        # A separate autocast context: its cache holds weights that were cast without gradients.
        with autocast:
            parts = with_joint_ohem_weights(state, parts, recipe)
    torch.manual_seed(seed)
    state.optimizer.zero_grad(set_to_none=True)
    losses = torch.zeros(2, device=processes.device)
    for index, part in enumerate(parts):
        with autocast, _gradient_sync(state.parallel_student, enabled=index == len(parts) - 1):
            losses += forward_backward(state, part, recipe, processes.count)
    if recipe.train.clip_norm:
        clip_grad_norm_(state.student.parameters(), recipe.train.clip_norm)
    state.optimizer.step()
    update_teacher(state.teacher, state.student, ema_decay(state.step, recipe.train.ema_decay))
    state.step += 1
    return loss_values(batch, losses)


def build_student_batch(state: TrainingState, recipe: Recipe, batches: Batches, processes: Processes) -> StudentBatch:
    """The student's rows: a function of teacher, batches, seed and step."""
    context = StepContext(
        teacher=state.teacher,
        channels=state.student.encoder.channels,
        head_width=state.student.head.features,
        recipe=recipe,
        ignore_index=state.ignore_index,
        class_weights_K=state.class_weights_K,
        generator=torch.Generator().manual_seed(step_seed(recipe.seed, state.step)),
        local_rows=processes.share(recipe.train.batch_unlabelled),
        total=processes.total,
        thresholds=state.thresholds,
    )
    labelled, unlabelled = batches
    labelled = LabelledBatch(*(tensor.to(processes.device, non_blocking=True) for tensor in labelled))
    if unlabelled:
        unlabelled = UnlabelledBatch(*(tensor.to(processes.device, non_blocking=True) for tensor in unlabelled))
    return METHODS[recipe.method](labelled, unlabelled, context)


def forward_backward(state: TrainingState, part: StudentBatch, recipe: Recipe, processes: int) -> Tensor:
    """Forward and backward pass of one micro-batch; returns its labelled and unlabelled loss, float [2]."""
    logits_RKhw = state.parallel_student(part.image_RCHW, part.dropout, part.head_dropout, upsample=False)
    align_corners, labelled = state.student.head.align_corners, part.labelled
    if recipe.loss.kind == "ohem" and recipe.train.accumulate == 1:
        (part,) = _with_ohem_weights([part], [logits_RKhw[:labelled].detach()], recipe, align_corners=align_corners)
    weight_RHW = part.weight_RHW
    factor_R = torch.full((len(weight_RHW),), part.scale[1], device=weight_RHW.device)
    factor_R[:labelled] = part.scale[0]
    # DistributedDataParallel averages gradients over the processes; the weights assume a sum.
    loss_R, gradient_RKhw = chunked_cross_entropy(
        logits_RKhw.detach(), part.label_RHW, weight_RHW, factor_R * processes, align_corners=align_corners
    )
    logits_RKhw.backward(gradient_RKhw)
    return torch.stack([loss_R[:labelled].sum(), loss_R[labelled:].sum()])


@torch.no_grad()
def with_joint_ohem_weights(state: TrainingState, parts: Sequence[StudentBatch], recipe: Recipe) -> list[StudentBatch]:
    """Micro-batches with OHEM weights chosen over the labelled pixels of all of them.

    One more forward pass in training mode, with the same random state, gives the logits that the loss is computed from.
    Batch norm still uses each micro-batch's own statistics.
    """
    with _restored_buffers(state.student):
        logits = [
            state.student(part.image_RCHW, part.dropout, part.head_dropout, upsample=False)[: part.labelled]
            for part in parts
        ]
    return _with_ohem_weights(parts, logits, recipe, align_corners=state.student.head.align_corners)


def micro_batches(batch: StudentBatch, count: int) -> list[StudentBatch]:
    """Split a batch into at most `count` parts with the same mixture of labelled rows and views."""
    if count == 1:
        return [batch]
    labelled, views = torch.arange(len(batch.image_RCHW)).tensor_split([batch.labelled])
    rows = [torch.cat([labelled[index::count], views[index::count]]) for index in range(count)]
    return [rows_of(batch, row_R) for row_R in rows if len(row_R)]


def step_seed(seed: int, step: int) -> int:
    """The seed of one step, so that no random state has to be saved."""
    return (seed << 32) + step


def uses_bf16(recipe: Recipe, device: torch.device) -> bool:
    """Whether the network runs in bf16 autocast.

    Deviation: "auto" is bf16 on GPUs that support it, where the authors train in fp32. Losses and optimizer stay fp32.
    """
    if recipe.train.precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return recipe.train.precision == "bf16"


def loss_values(batch: StudentBatch, losses: Tensor) -> dict[str, Tensor]:
    """The losses under their event names; "confident" is the fraction of unlabelled pixels that count."""
    labelled, unlabelled = losses.unbind()
    if batch.scale[1] == 0:
        return {"loss": labelled * batch.scale[0]}
    return {
        "loss": batch.scale[0] * labelled + batch.scale[1] * unlabelled,
        "loss_labelled": labelled,
        "loss_unlabelled": unlabelled,
        "confident": batch.weight_RHW[batch.labelled :].sum(),
    }


def _with_ohem_weights(
    parts: Sequence[StudentBatch], logits: Sequence[Tensor], recipe: Recipe, *, align_corners: bool
) -> list[StudentBatch]:
    """Apply OHEM with a common threshold; `logits` [B,K,h,w] are those of the parts' labelled rows."""
    counts = [part.labelled for part in parts]
    if not sum(counts):
        return list(parts)
    label_BHW = torch.cat([part.label_RHW[: part.labelled] for part in parts])
    hard_BHW = ohem_weights(
        torch.cat(list(logits)),
        label_BHW,
        torch.cat([part.weight_RHW[: part.labelled] for part in parts]),
        threshold=recipe.loss.ohem_threshold,
        min_kept=round(recipe.loss.ohem_min_kept_share * label_BHW.numel()),
        align_corners=align_corners,
    )
    return [
        replace(part, weight_RHW=torch.cat([own_BHW, part.weight_RHW[part.labelled :]]))
        for part, own_BHW in zip(parts, torch.split(hard_BHW, counts), strict=True)
    ]


@contextmanager
def _restored_buffers(module: torch.nn.Module) -> Iterator[None]:
    before = [buffer.clone() for buffer in module.buffers()]
    yield
    for buffer, old in zip(module.buffers(), before, strict=True):
        buffer.copy_(old)


def rows_of(batch: StudentBatch, row_R: Tensor) -> StudentBatch:
    """The given rows of a batch, labelled rows first; indices int64 on any device."""
    on_device = row_R.to(batch.image_RCHW.device, non_blocking=True)
    return replace(
        batch,
        image_RCHW=batch.image_RCHW[on_device],
        label_RHW=batch.label_RHW[on_device],
        weight_RHW=batch.weight_RHW[on_device],
        labelled=int((row_R < batch.labelled).sum()),
        dropout=batch.dropout and tuple(mask_RC[on_device] for mask_RC in batch.dropout),
        head_dropout=None if batch.head_dropout is None else batch.head_dropout[on_device],
    )


def _gradient_sync(student: torch.nn.Module, *, enabled: bool) -> AbstractContextManager[None]:
    if enabled or not isinstance(student, DistributedDataParallel):
        return nullcontext()
    return student.no_sync()
