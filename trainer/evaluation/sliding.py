"""A window that slides over an image of any size: the paper's evaluation on Cityscapes (section 5.1).

Each place gets the mean of the softmax of all windows that see it. Windows come in rows, and what lies above the next
row is final: so the image comes out in bands, and no more than one window's height of K class maps is ever held.
"""

# N images, C channels, K classes, H W pixels of the image, h w of the window

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from torch import Tensor

from trainer.config import RecipeError

Network = Callable[[Tensor], Tensor]
"""Float [N,3,h,w] in 0..1 to logits [N,K,h,w]."""

VALUES_AT_ONCE = 2**27
"""Values of the logits of the windows that go through the network together: 0.5 GB in fp32."""


@dataclass(frozen=True, slots=True)
class Band:
    """Finished rows of an image.

    Attributes:
        top: the first of them.
        probability_NKbW: float [N,K,b,W], softmax over the classes.
    """

    top: int
    probability_NKbW: Tensor


def sliding_probabilities(network: Network, image_NCHW: Tensor, window: tuple[int, int], stride: float) -> Tensor:
    """Mean softmax of all windows, float [N,K,H,W]: `sliding_bands` put together."""
    bands = [band.probability_NKbW for band in sliding_bands(network, image_NCHW, window, stride)]
    return torch.cat(bands, dim=2)


def sliding_bands(network: Network, image_NCHW: Tensor, window: tuple[int, int], stride: float) -> Iterator[Band]:
    """Mean softmax of all windows, from the top of the image to its bottom.

    An image that is smaller than the window is padded as training crops are: black, at the right and below.

    Deviation: the paper's code sums the softmax and does not divide by the number of windows. The arg-max is the same,
    and the mean is a probability.

    Args:
        network: float [n,3,h,w] to logits [n,K,h,w].
        image_NCHW: float, RGB, 0..1, of any size.
        window: height and width, in pixels.
        stride: step of the window as a part of its side, 0..1; the last window lies flush with the border.

    Yields:
        bands that cover the image without gap or overlap.
    """
    size = (image_NCHW.shape[2], image_NCHW.shape[3])
    padding = [max(side - length, 0) for side, length in zip(window, size, strict=True)]
    padded_NCHW = F.pad(image_NCHW, (0, padding[1], 0, padding[0]))
    tops, lefts = (_starts(length, side, stride) for length, side in zip(padded_NCHW.shape[2:], window, strict=True))
    rows_H, columns_W = (
        _windows_over(starts, side, image_NCHW.device) for starts, side in ((tops, window[0]), (lefts, window[1]))
    )
    pending = None
    for top, following in zip(tops, [*tops[1:], size[0]], strict=True):
        summed_NKhW = _row(network, padded_NCHW[:, :, top : top + window[0]], lefts, window[1])
        if pending is not None:
            summed_NKhW[:, :, : pending.shape[2]] += pending
        finished = following - top
        counts_bW = rows_H[top:following, None] * columns_W
        yield Band(top, (summed_NKhW[:, :, :finished] / counts_bW)[..., : size[1]])
        pending = summed_NKhW[:, :, finished:]


def check_window(window: tuple[int, int], multiple: int) -> None:
    """Raise RecipeError when the network, whose sides are multiples of `multiple`, cannot take the window."""
    for side in window:
        if side < multiple or side % multiple:
            near = max(1, round(side / multiple)) * multiple
            raise RecipeError(
                f"inference.window has a side of {side}; with this encoder it must be a multiple of {multiple}: {near}"
            )


def _row(network: Network, strip_NChW: Tensor, lefts: list[int], width: int) -> Tensor:
    """Summed softmax of one row of windows, float [N,K,h,W]."""
    summed_NKhW = None
    at_once = 1
    while lefts:
        now, lefts = lefts[:at_once], lefts[at_once:]
        windows_nChw = torch.cat([strip_NChW[..., left : left + width] for left in now])
        probability_nKhw = network(windows_nChw).float().softmax(dim=1)
        if summed_NKhW is None:
            # The first window tells how many classes there are, and so how many windows may go together.
            at_once = max(1, VALUES_AT_ONCE // probability_nKhw.numel())
            summed_NKhW = probability_nKhw.new_zeros((*probability_nKhw.shape[:3], strip_NChW.shape[3]))
        for left, part_NKhw in zip(now, probability_nKhw.chunk(len(now)), strict=True):
            summed_NKhW[..., left : left + width] += part_NKhw
    assert summed_NKhW is not None  # noqa: S101 (there is always a window)
    return summed_NKhW


def _starts(length: int, side: int, stride: float) -> list[int]:
    """Where windows of `side` begin on a line of `length` pixels that is no shorter."""
    step = max(1, round(side * stride))
    return [*range(0, length - side, step), length - side]


def _windows_over(starts: list[int], side: int, device: torch.device) -> Tensor:
    """How many windows see each pixel of the line, float [length]."""
    counts = torch.zeros(starts[-1] + side)
    for start in starts:
        counts[start : start + side] += 1
    return counts.to(device)
