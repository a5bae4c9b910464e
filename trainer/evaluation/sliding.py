"""Sliding-window inference, as in the paper's evaluation on Cityscapes (section 5.1).

Windows are processed in rows; pixels above the next row are returned as a band, so only a window height of K class
maps is kept.
"""

# N images, n windows, C channels, K classes, H W pixels of the image, h w of the window, b rows of a band

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from torch import Tensor

from trainer.config import RecipeError

Network = Callable[[Tensor], Tensor]
"""Float [N,3,h,w] in 0..1 to logits [N,K,h,w]."""

MAX_LOGITS = 2**27
"""Logits of one batch of windows: 0.5 GB in fp32."""


def sliding_probabilities(network: Network, image_NCHW: Tensor, window: tuple[int, int], stride: float) -> Tensor:
    """Mean softmax of all windows, float [N,K,H,W]: see `sliding_bands`."""
    return torch.cat(list(sliding_bands(network, image_NCHW, window, stride)), dim=2)


def sliding_bands(network: Network, image_NCHW: Tensor, window: tuple[int, int], stride: float) -> Iterator[Tensor]:
    """Mean softmax of all windows, in bands float [N,K,b,W] of rows from top to bottom.

    The image is float, RGB, 0..1, of any size; `window` is (height, width) in pixels, and `stride` a fraction of its
    side, 0..1. The last window ends at the border. An image smaller than the window is padded like training crops:
    black, at the right and bottom.

    Deviation: the paper's code sums the softmax without dividing by the number of windows. The arg-max is the same, but
    the mean is a probability.
    """
    size = (image_NCHW.shape[2], image_NCHW.shape[3])
    padding = [max(side - length, 0) for side, length in zip(window, size, strict=True)]
    padded_NCHW = F.pad(image_NCHW, (0, padding[1], 0, padding[0]))
    tops, lefts = (_starts(length, side, stride) for length, side in zip(padded_NCHW.shape[2:], window, strict=True))
    rows_H, columns_W = (
        _window_counts(starts, side, image_NCHW.device) for starts, side in ((tops, window[0]), (lefts, window[1]))
    )
    pending = None
    for top, following in zip(tops, [*tops[1:], size[0]], strict=True):
        summed_NKhW = _row(network, padded_NCHW[:, :, top : top + window[0]], lefts, window[1])
        if pending is not None:
            summed_NKhW[:, :, : pending.shape[2]] += pending
        finished = following - top
        counts_bW = rows_H[top:following, None] * columns_W
        yield (summed_NKhW[:, :, :finished] / counts_bW)[..., : size[1]]
        pending = summed_NKhW[:, :, finished:]


def check_window(window: tuple[int, int], multiple: int) -> None:
    """Raise RecipeError unless both sides of the window are positive multiples of `multiple`."""
    for side in window:
        if side < multiple or side % multiple:
            nearest = max(1, round(side / multiple)) * multiple
            raise RecipeError(
                f"inference.window has a side of {side}; this encoder needs a multiple of {multiple}: set {nearest}"
            )


def _row(network: Network, strip_NChW: Tensor, lefts: list[int], width: int) -> Tensor:
    """Summed softmax of one row of windows, float [N,K,h,W]."""
    summed_NKhW = None
    batch = 1
    while lefts:
        current, lefts = lefts[:batch], lefts[batch:]
        windows_nChw = torch.cat([strip_NChW[..., left : left + width] for left in current])
        probability_nKhw = network(windows_nChw).float().softmax(dim=1)
        if summed_NKhW is None:
            # The first window shows the number of classes, which limits the batch.
            batch = max(1, MAX_LOGITS // probability_nKhw.numel())
            summed_NKhW = probability_nKhw.new_zeros((*probability_nKhw.shape[:3], strip_NChW.shape[3]))
        for left, part_NKhw in zip(current, probability_nKhw.chunk(len(current)), strict=True):
            summed_NKhW[..., left : left + width] += part_NKhw
    assert summed_NKhW is not None  # noqa: S101 (there is always a window)
    return summed_NKhW


def _starts(length: int, side: int, stride: float) -> list[int]:
    """Start positions of windows along an axis of `length` >= `side` pixels."""
    step = max(1, round(side * stride))
    return [*range(0, length - side, step), length - side]


def _window_counts(starts: list[int], side: int, device: torch.device) -> Tensor:
    """Number of windows that cover each pixel along an axis, float [length]."""
    counts = torch.zeros(starts[-1] + side)
    for start in starts:
        counts[start : start + side] += 1
    return counts.to(device)
