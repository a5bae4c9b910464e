"""Consistency training, shared by FixMatch, UniMatch V1 and V2.

The teacher labels a weak view of each unlabelled image; the student learns to predict the same for other views, the
streams.
"""

# U unlabelled images of this process, h 0 or 1 more (see cutmix.mix), R rows, C channels, H W pixels

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from trainer.data.batches.loaders import LabelledBatch, UnlabelledBatch
from trainer.data.batches.photometric import draw_photometric, strong_view
from trainer.losses import TINY
from trainer.methods.cutmix import draw_boxes, inside_boxes, mix
from trainer.methods.interface import StepContext, StudentBatch
from trainer.methods.pseudo_labels import PseudoLabels, pseudo_labels
from trainer.methods.supervised import labelled_rows
from trainer.models.segmenter import to_float


class Stream(NamedTuple):
    """One view of the unlabelled images, its pseudo-labels, and its share of the unlabelled loss."""

    image_UCHW: Tensor
    pseudo: PseudoLabels
    share: float


def label_weak_view(unlabelled: UnlabelledBatch | None, context: StepContext) -> Stream:
    """The weak view of U + h images with the teacher's pseudo-labels; updates adaptive thresholds."""
    if unlabelled is None:
        raise ValueError(f"{context.recipe.method} learns from unlabelled images, but there are none")
    weak_UCHW, inside_UHW = to_float(unlabelled.image_BHWC), unlabelled.inside_BHW
    pseudo, class_sum_UK = pseudo_labels(context.teacher, weak_UCHW, inside_UHW)
    if context.thresholds:
        own = len(context.local_rows)
        local = PseudoLabels(*(tensor[:own] for tensor in pseudo))
        context.thresholds.update(local, class_sum_UK[:own], total=context.total)
    return Stream(weak_UCHW, pseudo, 1.0)


def strong_streams(weak: Stream, shares: Sequence[float], context: StepContext) -> list[Stream]:
    """Strong views of the same crops, one per share, each with its own augmentation and CutMix boxes."""
    streams, images = len(shares), context.recipe.train.batch_unlabelled
    _, height, width = weak.pseudo.label_BHW.shape
    drawn = draw_photometric(streams * images, context.generator)
    probability = context.recipe.unimatch.cutmix_probability
    box_R4 = draw_boxes(streams * images, (height, width), probability, context.generator)
    # The image before the first is another process's and gets the same augmentation as there.
    held = [*context.local_rows, (context.local_rows.start - 1) % images][: len(weak.image_UCHW)]
    strong_RCHW = strong_view(weak.image_UCHW.repeat(streams, 1, 1, 1), drawn.rows(_row_indices(streams, images, held)))
    box_R4 = box_R4[_row_indices(streams, images, context.local_rows)].to(strong_RCHW.device, non_blocking=True)
    inside_RHW = inside_boxes(box_R4, (height, width))
    return [
        Stream(mix(image_UCHW, inside_UHW), PseudoLabels(*(mix(tensor, inside_UHW) for tensor in weak.pseudo)), share)
        for image_UCHW, inside_UHW, share in zip(
            strong_RCHW.chunk(streams), inside_RHW.chunk(streams), shares, strict=True
        )
    ]


def weak_stream(weak: Stream, share: float, context: StepContext) -> Stream:
    """The weak view itself as a stream, without CutMix."""
    own = len(context.local_rows)
    return Stream(weak.image_UCHW[:own], PseudoLabels(*(tensor[:own] for tensor in weak.pseudo)), share)


def join_streams(
    labelled: LabelledBatch,
    streams: Sequence[Stream],
    context: StepContext,
    *,
    dropout: tuple[Tensor, ...] | None = None,
    head_dropout: Tensor | None = None,
) -> StudentBatch:
    """Join labelled images and streams to a batch; L = (L_labelled + unlabelled_weight * L_unlabelled) / 2.

    The loss of a stream is the sum over its confident pixels, divided by the number of pixels inside the image.
    """
    label_BHW, weight_BHW = labelled_rows(labelled, context)
    insides = [stream.pseudo.inside_BHW.sum(dtype=torch.float32) for stream in streams]
    # Deviation: means are over the pixels of all processes, and 0 without any. The authors average the means of the
    # processes, each NaN without any.
    labelled_sum, *counts = context.total(torch.stack([weight_BHW.sum(), *insides])).unbind()
    weights = [
        _confident_pixels(stream.pseudo, context) * (stream.share / count.clamp(min=1))
        for stream, count in zip(streams, counts, strict=True)
    ]
    return StudentBatch(
        image_RCHW=torch.cat([to_float(labelled.image_BHWC), *(stream.image_UCHW for stream in streams)]),
        label_RHW=torch.cat([label_BHW, *(stream.pseudo.label_BHW for stream in streams)]),
        weight_RHW=torch.cat([weight_BHW / labelled_sum.clamp(min=TINY), *weights]),
        labelled=len(label_BHW),
        scale=(0.5, 0.5 * context.recipe.unimatch.unlabelled_weight),
        dropout=dropout,
        head_dropout=head_dropout,
    )


def channel_factors(
    labelled: int, masks: Sequence[Tensor | None], context: StepContext, device: torch.device
) -> Tensor:
    """Channel factors of a student batch, float [R,C]: 1 for labelled rows, and this process's rows of each mask.

    `masks` has for each stream a float [U_all,C] on the CPU, for all processes; None = no dropout.
    """
    width = next(mask.shape[1] for mask in masks if mask is not None)
    own = slice(context.local_rows.start, context.local_rows.stop)
    whole = torch.ones(len(context.local_rows), width)
    rows = [torch.ones(labelled, width), *(whole if mask is None else mask[own] for mask in masks)]
    return torch.cat(rows).to(device, non_blocking=True)


def _confident_pixels(pseudo: PseudoLabels, context: StepContext) -> Tensor:
    """Pixels inside the image whose confidence reaches the threshold, bool [U,H,W]."""
    threshold: float | Tensor = context.recipe.unimatch.fixed_threshold
    if context.thresholds is not None:
        threshold = context.thresholds(pseudo.label_BHW, threshold)
    return (pseudo.confidence_BHW >= threshold) & pseudo.inside_BHW


def _row_indices(streams: int, images: int, wanted: Sequence[int]) -> Tensor:
    """Indices of the wanted images in the draws of all streams."""
    return (images * torch.arange(streams)[:, None] + torch.tensor(wanted)).flatten()
