"""Arg-max and its softmax over upsampled logits, without all class maps at the image's size.

A few class maps at a time are upsampled and reduced to the largest logit, its class and the sum of exponentials. The
largest logit of each map pixel is subtracted first, so that none exceeds 0.
"""

# N images, K classes, C classes of one group, h w the head's size, H W pixels

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from torch import Tensor

CLASSES_AT_ONCE = 16
"""Classes per group: more need more memory, fewer need more passes over the image."""


def upsampled_argmax(logits_NKhw: Tensor, size: Sequence[int], *, align_corners: bool) -> tuple[Tensor, Tensor]:
    """Class ids of the largest logits, int64 [N,*size], the first of equal ones; and their softmax, float32 in 0..1."""
    if logits_NKhw.shape[1] == 0:
        raise ValueError("the logits have no class; there must be at least one")
    logits_NKhw = logits_NKhw - logits_NKhw.amax(dim=1, keepdim=True)
    best_NHW, class_NHW, total_NHW = _reduce_group(logits_NKhw[:, :CLASSES_AT_ONCE], size, align_corners)
    for first in range(CLASSES_AT_ONCE, logits_NKhw.shape[1], CLASSES_AT_ONCE):
        part_NChw = logits_NKhw[:, first : first + CLASSES_AT_ONCE] + _zero_after(class_NHW, total_NHW)
        top_NHW, index_NHW, sum_NHW = _reduce_group(part_NChw, size, align_corners)
        class_NHW = torch.where(top_NHW > best_NHW, index_NHW + first, class_NHW)
        best_NHW, total_NHW = torch.maximum(best_NHW, top_NHW), total_NHW + sum_NHW
    # Both underflow to 0 only between map pixels whose logits differ by more than 87; the clamp gives 0 instead of NaN.
    return class_NHW, best_NHW.exp() / total_NHW.clamp(min=torch.finfo(torch.float32).tiny)


def _reduce_group(part_NChw: Tensor, size: Sequence[int], align_corners: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Largest logit, its index and the sum of exponentials over one group of classes at `size`, each [N,H,W]."""
    part_NCHW = F.interpolate(part_NChw, tuple(size), mode="bilinear", align_corners=align_corners).float()
    top_NHW, index_NHW = part_NCHW.max(dim=1)
    return top_NHW, index_NHW, part_NCHW.exp().sum(dim=1)


def _zero_after(class_NHW: Tensor, total_NHW: Tensor) -> Tensor:
    """Zero, float [N,1,1,1], that depends on the previous group: else onnxruntime upsamples all groups at once."""
    return ((class_NHW[:, :1, :1] + total_NHW[:, :1, :1]) * 0)[:, None]
