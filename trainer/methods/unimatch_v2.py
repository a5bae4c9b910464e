"""UniMatch V2: Pushing the Limit of Semi-Supervised Semantic Segmentation (arXiv 2410.10777), one training step.

The teacher labels a weak view; the student must say the same about two strong views of the same crop, each of which
sees one half of the encoder's channels.

Deviation: one student forward for labelled and strong views, where the authors do two. With the labelled images' mask
at 1 it is the same for networks without batch norm, as all of the paper's are, and costs less; batch norm takes its
statistics over both together.
"""

# R rows, C channels, D width of the head's fused map

import torch
from torch import Tensor

from trainer.data.loaders import LabelledBatch, UnlabelledBatch
from trainer.methods.channel_dropout import channel_masks
from trainer.methods.consistency import stacked, strong_streams, student_batch, weak_view
from trainer.methods.context import Context
from trainer.methods.student_batch import StudentBatch


def unimatch_v2(labelled: LabelledBatch, unlabelled: UnlabelledBatch | None, context: Context) -> StudentBatch:
    """One step: labelled images and the strong views, each with its own part of the channels."""
    knobs, weak = context.recipe.unimatch, weak_view(unlabelled, context)
    streams = strong_streams(weak, (1 / knobs.streams,) * knobs.streams, context)
    if knobs.dropout == "none":
        return student_batch(labelled, streams, context)
    device, count = weak.image_UCHW.device, len(labelled.image_BHWC)
    if knobs.dropout_place == "head":
        (mask_RD,) = _dropout(count, (context.head_width,), context, device)
        return student_batch(labelled, streams, context, head_dropout=mask_RD)
    return student_batch(labelled, streams, context, dropout=_dropout(count, context.channels, context, device))


def _dropout(labelled: int, channels: tuple[int, ...], context: Context, device: torch.device) -> tuple[Tensor, ...]:
    """For each of several maps the channel factors of the student batch, float [R,C_i]."""
    knobs = context.recipe.unimatch
    views = channel_masks(
        knobs.dropout,
        context.recipe.train.batch_unlabelled,
        channels,
        probability=knobs.dropout_probability,
        undropped_fraction=knobs.undropped_fraction,
        generator=context.generator,
    )
    return tuple(stacked(labelled, masks, context, device) for masks in zip(*views[: knobs.streams], strict=True))
