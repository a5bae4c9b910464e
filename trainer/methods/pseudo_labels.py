"""Pseudo-labels: the teacher's prediction for the weak view (UniMatch V2, section 3.1)."""

# B batch, C channels, K classes, H W pixels

from typing import NamedTuple

import torch
from torch import Tensor

from trainer.losses import MAX_ELEMENTS, row_chunks
from trainer.models.segmenter import Segmenter


class PseudoLabels(NamedTuple):
    """Class ids int64, confidence float in 0..1, and bool True inside the image (False on padding); each [B,H,W]."""

    label_BHW: Tensor
    confidence_BHW: Tensor
    inside_BHW: Tensor


@torch.no_grad()
def pseudo_labels(
    teacher: Segmenter, weak_BCHW: Tensor, inside_BHW: Tensor, *, max_elements: int = MAX_ELEMENTS
) -> tuple[PseudoLabels, Tensor]:
    """Arg-max and maximum softmax of the teacher, and for each image the sum of each class's probability, float [B,K].

    The teacher is in eval mode; the images are float, RGB, 0..1; `inside_BHW` is bool, False on padding. At most
    `max_elements` logits are upsampled at once.
    """
    size = weak_BCHW.shape[-2:]
    logits_BKhw = teacher(weak_BCHW, upsample=False)
    label_BHW = torch.empty((len(weak_BCHW), *size), dtype=torch.int64, device=weak_BCHW.device)
    confidence_BHW = torch.empty(label_BHW.shape, device=weak_BCHW.device)
    sum_BK = torch.empty(logits_BKhw.shape[:2], device=weak_BCHW.device)
    with torch.autocast(weak_BCHW.device.type, enabled=False):
        for rows in row_chunks(len(weak_BCHW), logits_BKhw.shape[1] * size.numel(), max_elements):
            probability_RKHW = teacher.upsample(logits_BKhw[rows].float(), size).softmax(dim=1)
            confidence_BHW[rows], label_BHW[rows] = probability_RKHW.max(dim=1)
            sum_BK[rows] = (probability_RKHW * inside_BHW[rows, None]).sum(dim=(2, 3))
    return PseudoLabels(label_BHW, confidence_BHW, inside_BHW), sum_BK
