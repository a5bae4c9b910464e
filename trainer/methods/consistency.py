"""What FixMatch, UniMatch V1 and V2 share: a teacher labels a weak view, the student must say the same about others.

Each of them is a list of streams, one for each view of the unlabelled images, joined with the labelled images into one
batch for the student.
"""

# U unlabelled images of this process, h 0 or 1 more (see cutmix.mix), S streams, R rows, C channels, H W pixels

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from trainer.data.loaders import LabelledBatch, UnlabelledBatch
from trainer.data.photometric import draw_photometric, strong_view
from trainer.losses import TINY
from trainer.methods.context import Context
from trainer.methods.cutmix import draw_boxes, inside_boxes, mix
from trainer.methods.pseudo_labels import PseudoLabels, labels_and_class_sums, pseudo_labels
from trainer.methods.student_batch import StudentBatch
from trainer.methods.supervised import labelled_rows
from trainer.models.segmenter import to_float


class Stream(NamedTuple):
    """One view of the unlabelled images, what the student must say about it, and its part of the unlabelled loss."""

    image_UCHW: Tensor
    pseudo: PseudoLabels
    share: float


def weak_view(unlabelled: UnlabelledBatch | None, context: Context) -> Stream:
    """The unlabelled images as the teacher sees them, the h additional one too, labelled by it."""
    if unlabelled is None:
        raise ValueError(f"{context.recipe.method} learns from unlabelled images, and there are none")
    weak_UCHW, inside_UHW = to_float(unlabelled.image_BHWC), unlabelled.inside_BHW
    if context.thresholds is None:
        return Stream(weak_UCHW, pseudo_labels(context.teacher, weak_UCHW, inside_UHW), 1.0)
    pseudo, class_sum_UK = labels_and_class_sums(context.teacher, weak_UCHW, inside_UHW)
    own = len(context.own)
    context.thresholds.update(
        PseudoLabels(*(tensor[:own] for tensor in pseudo)), class_sum_UK[:own], total=context.total
    )
    return Stream(weak_UCHW, pseudo, 1.0)


def strong_streams(weak: Stream, shares: Sequence[float], context: Context) -> list[Stream]:
    """Strong views of the same crops, one for each share, each with its own colours and its own CutMix.

    Image, label, confidence and padding are mixed alike.
    """
    streams, images = len(shares), context.recipe.train.batch_unlabelled
    _, height, width = weak.pseudo.label_BHW.shape
    drawn = draw_photometric(streams * images, context.generator)
    probability = context.recipe.unimatch.cutmix_probability
    box_R4 = draw_boxes(streams * images, (height, width), probability, context.generator)
    # The image before the first, which may lie with another process, is coloured as it is there.
    held = [*context.own, (context.own.start - 1) % images][: len(weak.image_UCHW)]
    strong_RCHW = strong_view(weak.image_UCHW.repeat(streams, 1, 1, 1), drawn.rows(_rows(streams, images, held)))
    box_R4 = box_R4[_rows(streams, images, context.own)].to(strong_RCHW.device, non_blocking=True)
    inside_RHW = inside_boxes(box_R4, (height, width))
    return [
        Stream(mix(image_UCHW, inside_UHW), PseudoLabels(*(mix(tensor, inside_UHW) for tensor in weak.pseudo)), share)
        for image_UCHW, inside_UHW, share in zip(
            strong_RCHW.chunk(streams), inside_RHW.chunk(streams), shares, strict=True
        )
    ]


def own_rows(weak: Stream, share: float, context: Context) -> Stream:
    """The weak view itself as a stream, unmixed."""
    own = len(context.own)
    return Stream(weak.image_UCHW[:own], PseudoLabels(*(tensor[:own] for tensor in weak.pseudo)), share)


def student_batch(
    labelled: LabelledBatch,
    streams: Sequence[Stream],
    context: Context,
    *,
    dropout: tuple[Tensor, ...] | None = None,
    head_dropout: Tensor | None = None,
) -> StudentBatch:
    """Join labelled images and streams; L = (L_labelled + unlabelled_weight * L_unlabelled) / 2.

    The loss of a stream is the sum over its confident pixels, divided by the count of all that are inside the image.

    Args:
        labelled: images and masks of this process.
        streams: of this process.
        context: the step's.
        dropout: for each encoder map a factor per row and channel, as `stacked` makes it; None leaves all whole.
        head_dropout: likewise for the head's fused map.
    """
    label_BHW, weight_BHW = labelled_rows(labelled, context)
    insides = [stream.pseudo.inside_BHW.sum(dtype=torch.float32) for stream in streams]
    # The means are over all processes' pixels together. Deviation: the authors average each process's own mean, which
    # makes a pixel count more on the process that has fewer of them.
    labelled_sum, *counts = context.total(torch.stack([weight_BHW.sum(), *insides])).unbind()
    weights = [
        _confident(stream.pseudo, context) * (stream.share / count.clamp(min=1))
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


def stacked(labelled: int, masks: Sequence[Tensor | None], context: Context, device: torch.device) -> Tensor:
    """Channel factors of a student batch: 1 for the labelled rows, and of each stream's mask this process's rows.

    Args:
        labelled: how many labelled rows this process has.
        masks: for each stream float [U_all,C] on the CPU, of the batch of all processes; None leaves it whole.
        context: the step's.
        device: where the factors are wanted.

    Returns:
        Float [R,C].
    """
    width = next(mask.shape[1] for mask in masks if mask is not None)
    own = slice(context.own.start, context.own.stop)
    whole = torch.ones(len(context.own), width)
    rows = [torch.ones(labelled, width), *(whole if mask is None else mask[own] for mask in masks)]
    return torch.cat(rows).to(device, non_blocking=True)


def _confident(pseudo: PseudoLabels, context: Context) -> Tensor:
    """Bool [U,H,W]: pixels of the image of which the teacher is sure enough."""
    threshold: float | Tensor = context.recipe.unimatch.confidence_threshold
    if context.thresholds is not None:
        threshold = context.thresholds(pseudo.label_BHW, threshold)
    return (pseudo.confidence_BHW >= threshold) & pseudo.inside_BHW


def _rows(streams: int, images: int, wanted: Sequence[int]) -> Tensor:
    """Where the wanted images lie in what was drawn for all streams of the whole batch, one stream after another."""
    return (images * torch.arange(streams)[:, None] + torch.tensor(wanted)).flatten()
