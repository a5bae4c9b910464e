"""UniMatch V2: Pushing the Limit of Semi-Supervised Semantic Segmentation (arXiv 2410.10777), one training step.

Deviation: one student forward pass for labelled images and strong views, where the authors do two. Without batch norm,
as in all of the paper's networks, the result is the same.
"""

# R rows, C channels, D channels of the head's fused map

import torch
from torch import Tensor

from trainer.data.batches.loaders import LabelledBatch, UnlabelledBatch
from trainer.methods.channel_dropout import channel_masks
from trainer.methods.consistency import channel_factors, join_streams, label_weak_view, strong_streams
from trainer.methods.interface import StepContext, StudentBatch


def unimatch_v2(labelled: LabelledBatch, unlabelled: UnlabelledBatch | None, context: StepContext) -> StudentBatch:
    """Student batch: labelled images and strong views, each with its own subset of the channels."""
    settings, weak = context.recipe.unimatch, label_weak_view(unlabelled, context)
    streams = strong_streams(weak, (1 / settings.streams,) * settings.streams, context)
    if settings.dropout == "none":
        return join_streams(labelled, streams, context)
    device, count = weak.image_UCHW.device, len(labelled.image_BHWC)
    if settings.dropout_place == "head":
        (mask_RD,) = _dropout(count, (context.head_width,), context, device)
        return join_streams(labelled, streams, context, head_dropout=mask_RD)
    return join_streams(labelled, streams, context, dropout=_dropout(count, context.channels, context, device))


def _dropout(
    labelled: int, channels: tuple[int, ...], context: StepContext, device: torch.device
) -> tuple[Tensor, ...]:
    settings = context.recipe.unimatch
    views = channel_masks(
        settings.dropout,
        context.recipe.train.batch_unlabelled,
        channels,
        probability=settings.dropout_probability,
        undropped_fraction=settings.undropped_fraction,
        generator=context.generator,
    )
    return tuple(
        channel_factors(labelled, masks, context, device) for masks in zip(*views[: settings.streams], strict=True)
    )
