"""Pseudo-labels: what the teacher says about the weak view (UniMatch V2, section 3.1)."""

# B batch, C channels, K classes, H W pixels

from typing import NamedTuple

import torch
from torch import Tensor, nn


class PseudoLabels(NamedTuple):
    """Class ids int64, confidence float in 0..1, and where the crop shows an image, bool; each [B,H,W]."""

    label_BHW: Tensor
    confidence_BHW: Tensor
    inside_BHW: Tensor


@torch.no_grad()
def pseudo_labels(teacher: nn.Module, weak_BCHW: Tensor, inside_BHW: Tensor) -> PseudoLabels:
    """Confidence = max softmax, label = arg-max, of a teacher that is in eval mode, without gradient."""
    probability_BKHW = teacher(weak_BCHW).float().softmax(dim=1)
    confidence_BHW, label_BHW = probability_BKHW.max(dim=1)
    return PseudoLabels(label_BHW, confidence_BHW, inside_BHW)
