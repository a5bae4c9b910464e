"""The most likely class of each pixel of the image, from logits at the head's size, in little memory.

The plain way resizes all K class maps, takes their softmax, and then the largest: K times the image's pixels, three
times over. Here a few class maps at a time are resized and folded into what the softmax of the winner needs, its logit
and the sum of all exponentials. What those are divided by to stay small is known before anything is resized: the mean
of neighbours' largest logits is at least the largest of their means. The result is the same to rounding, and no loop
is left in the exported graph.
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
    if logits_NKhw.shape[1] == 0:
        raise ValueError("no class map: there must be one class at least")
    # Where the head sees it, the largest is 0 from here on; between those places it cannot be more. So nothing
    # overflows, and no exponential waits for the largest of its pixel.
    logits_NKhw = logits_NKhw - logits_NKhw.amax(dim=1, keepdim=True)
    best_NHW, class_NHW, total_NHW = _folded(logits_NKhw[:, :CLASSES_AT_ONCE], size, align_corners)
    for first in range(CLASSES_AT_ONCE, logits_NKhw.shape[1], CLASSES_AT_ONCE):
        part_NChw = logits_NKhw[:, first : first + CLASSES_AT_ONCE] + _nothing_after(class_NHW, total_NHW)
        top_NHW, index_NHW, sum_NHW = _folded(part_NChw, size, align_corners)
        class_NHW = torch.where(top_NHW > best_NHW, index_NHW + first, class_NHW)
        best_NHW, total_NHW = torch.maximum(best_NHW, top_NHW), total_NHW + sum_NHW
    # Both are 0 only where neighbours differ by more than 87; that is no confidence, rather than no number.
    return class_NHW, best_NHW.exp() / total_NHW.clamp(min=torch.finfo(torch.float32).tiny)


def _folded(part_NChw: Tensor, size: Sequence[int], align_corners: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Of these classes at `size`, all [N,H,W]: the largest logit, whose it is, and the sum of the exponentials."""
    part_NCHW = F.interpolate(part_NChw, tuple(size), mode="bilinear", align_corners=align_corners).float()
    top_NHW, index_NHW = part_NCHW.max(dim=1)
    return top_NHW, index_NHW, part_NCHW.exp().sum(dim=1)


def _nothing_after(class_NHW: Tensor, total_NHW: Tensor) -> Tensor:
    """Zero, float [N,1,1,1], that nobody knows before the last turn is over.

    onnxruntime runs a graph's nodes in an order of its own. Without this it resizes all classes first, and keeps them.
    """
    return ((class_NHW[:, :1, :1] + total_NHW[:, :1, :1]) * 0)[:, None]
