"""Supervised baseline: cross-entropy on the labelled images only."""

# B labelled images, K classes, H W pixels

import torch
from torch import Tensor

from trainer.data.batches.loaders import LabelledBatch, UnlabelledBatch
from trainer.losses import TINY
from trainer.methods.interface import StepContext, StudentBatch
from trainer.models.segmenter import to_float


def supervised(labelled: LabelledBatch, _unlabelled: UnlabelledBatch | None, context: StepContext) -> StudentBatch:
    """Student batch of the labelled images; the loss is the mean over the labelled pixels.

    Deviation: without any labelled pixel the loss is 0; the authors' is NaN.
    """
    label_BHW, weight_BHW = labelled_rows(labelled, context)
    return StudentBatch(
        image_RCHW=to_float(labelled.image_BHWC),
        label_RHW=label_BHW,
        weight_RHW=weight_BHW / context.total(weight_BHW.sum()).clamp(min=TINY),
        labelled=len(label_BHW),
        scale=(1.0, 0.0),
    )


def labelled_rows(labelled: LabelledBatch, context: StepContext) -> tuple[Tensor, Tensor]:
    """Class ids int64 [B,H,W] and pixel weights float32 [B,H,W]; both are 0 without a label."""
    valid_BHW = labelled.mask_BHW != context.ignore_index
    # The mask is loaded as a small integer type.
    label_BHW = torch.where(valid_BHW, labelled.mask_BHW, 0).long()
    if context.class_weights_K is None:
        return label_BHW, valid_BHW.float()
    return label_BHW, context.class_weights_K[label_BHW] * valid_BHW
