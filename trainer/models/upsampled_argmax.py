"""The most likely class of each pixel of the image, from logits at the head's size, in little memory.

The plain way resizes all K class maps, takes their softmax, and then the largest: K times the image's pixels, three
times over. Here a few class maps at a time are resized and folded into what the softmax of the winner needs, its logit
and the sum of all exponentials, as attention does it key by key (Milakov and Gimelshein, Online normalizer calculation
for softmax, arXiv 1805.02867). The result is the same to rounding, and no loop is left in the exported graph.
"""

# N images, K classes, C classes of one turn, h w the head's size, H W pixels

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from torch import Tensor

CLASSES_AT_ONCE = 16
"""More would need more memory; fewer, more passes over the image."""


def upsampled_argmax(logits_NKhw: Tensor, size: Sequence[int], *, align_corners: bool) -> tuple[Tensor, Tensor]:
    """The class with the largest logit at `size`, and its softmax.

    Args:
        logits_NKhw: float [N,K,h,w].
        size: height and width of the result.
        align_corners: how the head resizes.

    Returns:
        class ids int64 [N,*size], the first where several are equal; and their probability, float32 in 0..1.
    """
    best_NHW = class_NHW = total_NHW = None
    for first in range(0, logits_NKhw.shape[1], CLASSES_AT_ONCE):
        part_NChw = logits_NKhw[:, first : first + CLASSES_AT_ONCE]
        if class_NHW is not None and total_NHW is not None:
            part_NChw = part_NChw + _nothing_after(class_NHW, total_NHW)
        part_NCHW = F.interpolate(part_NChw, tuple(size), mode="bilinear", align_corners=align_corners).float()
        top_NHW, index_NHW = part_NCHW.max(dim=1)
        sum_NHW = (part_NCHW - top_NHW[:, None]).exp().sum(dim=1)
        if best_NHW is None or class_NHW is None or total_NHW is None:
            best_NHW, class_NHW, total_NHW = top_NHW, index_NHW, sum_NHW
            continue
        higher_NHW = torch.maximum(best_NHW, top_NHW)
        total_NHW = total_NHW * (best_NHW - higher_NHW).exp() + sum_NHW * (top_NHW - higher_NHW).exp()
        class_NHW = torch.where(top_NHW > best_NHW, index_NHW + first, class_NHW)
        best_NHW = higher_NHW
    if class_NHW is None or total_NHW is None:
        raise ValueError("no class map: there must be one class at least")
    return class_NHW, total_NHW.reciprocal()


def _nothing_after(class_NHW: Tensor, total_NHW: Tensor) -> Tensor:
    """Zero, float [N,1,1,1], that nobody knows before the last turn is over.

    onnxruntime runs a graph's nodes in an order of its own. Without this it resizes all classes first, and keeps them.
    """
    return ((class_NHW[:, :1, :1] + total_NHW[:, :1, :1]) * 0)[:, None]
