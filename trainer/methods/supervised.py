"""Labels only: cross-entropy. The baseline, and the first model of a loop that has no teacher yet."""

# B labelled images, K classes, H W pixels

import torch
from torch import Tensor

from trainer.data.loaders import LabelledBatch, UnlabelledBatch
from trainer.losses import TINY
from trainer.methods.context import Context
from trainer.methods.student_batch import StudentBatch
from trainer.models.segmenter import to_float


def supervised(labelled: LabelledBatch, _unlabelled: UnlabelledBatch | None, context: Context) -> StudentBatch:
    """One step of the baseline: the mean over the labelled pixels."""
    label_BHW, weight_BHW = labelled_rows(labelled, context)
    return StudentBatch(
        image_RCHW=to_float(labelled.image_BHWC),
        label_RHW=label_BHW,
        weight_RHW=weight_BHW / context.total(weight_BHW.sum()).clamp(min=TINY),
        labelled=len(label_BHW),
        scale=(1.0, 0.0),
    )


def labelled_rows(labelled: LabelledBatch, context: Context) -> tuple[Tensor, Tensor]:
    """Class ids int64 [B,H,W], 0 where there is no label, and what each pixel counts, float32, 0 there."""
    valid_BHW = labelled.mask_BHW != context.ignore_index
    # The mask travels in few bytes; it becomes wide here, on the device.
    label_BHW = torch.where(valid_BHW, labelled.mask_BHW, 0).long()
    if context.class_weights_K is None:
        return label_BHW, valid_BHW.float()
    return label_BHW, context.class_weights_K[label_BHW] * valid_BHW
