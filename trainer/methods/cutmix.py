"""CutMix (arXiv 1905.04899): a box of each image is replaced by the same box of another image of the batch.

Box area 0.02-0.4 of the crop, aspect 0.3-3.33, with probability 0.5 an image (UniMatch V2's published settings).
"""

# U images, h 0 or 1 more (see mix), H W pixels; "..." is any number of channel dimensions

import torch
from torch import Tensor

AREA = (0.02, 0.4)
ASPECT = (0.3, 1 / 0.3)
TRIES = 1000
"""Boxes that are drawn before the bound on the aspect gives way; crops that are not long and thin need far fewer."""


def draw_boxes(batch: int, size: tuple[int, int], probability: float, generator: torch.Generator) -> Tensor:
    """Each image's box as top, left, bottom, right in pixels, the last two excluded; all 0 for images left unmixed.

    Args:
        batch: number of images U.
        size: height H and width W, in pixels.
        probability: of an image being mixed, 0..1.
        generator: a CPU generator.

    Returns:
        Int64 [U,4] on the CPU.
    """
    box_U4 = torch.zeros((batch, 4), dtype=torch.int64)
    for box_4 in box_U4:
        if float(torch.rand((), generator=generator)) < probability:
            top, left, height, width = _draw_box(size, generator)
            box_4[:] = torch.tensor([top, left, top + height, left + width])
    return box_U4


def inside_boxes(box_U4: Tensor, size: tuple[int, int]) -> Tensor:
    """Bool [U,H,W] on the boxes' device: True inside each image's box."""
    top_U, left_U, bottom_U, right_U = box_U4[:, :, None].unbind(dim=1)
    row_H, column_W = (torch.arange(side, device=box_U4.device) for side in size)
    inside_UH = (row_H >= top_U) & (row_H < bottom_U)
    inside_UW = (column_W >= left_U) & (column_W < right_U)
    return inside_UH[:, :, None] & inside_UW[:, None, :]


def mix(tensor: Tensor, inside_UHW: Tensor) -> Tensor:
    """Take from the image before, in the batch, what lies in the box: [U+h,...,H,W] to [U,...,H,W].

    A process that holds a part of the batch brings the image before its first as one more, the last (h = 1); for a
    whole batch (h = 0) the image before the first is the last one, so both are the same roll.

    Deviation: the authors take the partner from the flipped batch, where the middle image of an odd batch meets itself;
    a roll by one gives every image another one as its partner.
    """
    images = len(inside_UHW)
    inside = inside_UHW.view(images, *[1] * (tensor.ndim - 3), *inside_UHW.shape[1:])
    return torch.where(inside, tensor.roll(1, dims=0)[:images], tensor[:images])


def _draw_box(size: tuple[int, int], generator: torch.Generator) -> tuple[int, int, int, int]:
    """Top, left, height and width of one box.

    Deviation: the authors draw until a box fits. In a long thin crop no aspect of the range may fit a large area, and
    then the box keeps its area and takes an aspect that does.
    """
    # The area is drawn once: drawn anew with the place, large boxes, which seldom fit, would be rare.
    area = AREA[0] + (AREA[1] - AREA[0]) * float(torch.rand((), generator=generator))
    pixels = area * size[0] * size[1]
    for _ in range(TRIES):
        aspect, down, right = torch.rand(3, generator=generator).tolist()
        ratio = ASPECT[0] + (ASPECT[1] - ASPECT[0]) * aspect
        height, width = round((pixels * ratio) ** 0.5), round((pixels / ratio) ** 0.5)
        top, left = int(down * size[0]), int(right * size[1])
        if top + height <= size[0] and left + width <= size[1]:
            return top, left, height, width
    height, width = _clamped(pixels, height, size)
    return int(down * (size[0] - height + 1)), int(right * (size[1] - width + 1)), height, width


def _clamped(pixels: float, height: int, size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of a box of that area inside the crop, near that height."""
    width = min(round(pixels / min(height, size[0])), size[1])
    return min(round(pixels / width), size[0]), width
