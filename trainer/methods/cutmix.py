"""CutMix (arXiv 1905.04899): replace a box of each image by that of another image of the batch.

UniMatch V2's published settings: box area 0.02-0.4 of the crop, aspect ratio 0.3-3.33, probability 0.5 per image.
"""

# U images, h 0 or 1 more (see mix), H W pixels; "..." any channel dimensions

import torch
from torch import Tensor

AREA = (0.02, 0.4)
ASPECT = (0.3, 1 / 0.3)
MAX_TRIES = 1000
"""Draws before the aspect limit is dropped, in very elongated crops."""


def draw_boxes(batch: int, size: tuple[int, int], probability: float, generator: torch.Generator) -> Tensor:
    """Boxes (top, left, bottom, right) in pixels, bottom and right excluded, int64 [U,4] on the CPU.

    An image of `size` (H, W) is mixed with `probability`, 0..1; others have an empty box. `generator` is on the CPU.
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
    """Replace each image's box by that of the previous image in the batch: [U+h,...,H,W] to [U,...,H,W].

    A process with a part of the batch appends the image before its first one (h = 1).

    Deviation: the authors take the partner from the reversed batch, in which the middle image of an odd batch is its
    own partner. A roll by one avoids this.
    """
    images = len(inside_UHW)
    inside = inside_UHW.view(images, *[1] * (tensor.ndim - 3), *inside_UHW.shape[1:])
    return torch.where(inside, tensor.roll(1, dims=0)[:images], tensor[:images])


def _draw_box(size: tuple[int, int], generator: torch.Generator) -> tuple[int, int, int, int]:
    """Top, left, height and width of one box.

    Deviation: the authors draw until a box fits. After MAX_TRIES the box keeps its area and gets an aspect that fits.
    """
    # The area is drawn once: redrawing it with the position would make large boxes rare.
    area = AREA[0] + (AREA[1] - AREA[0]) * float(torch.rand((), generator=generator))
    pixels = area * size[0] * size[1]
    for _ in range(MAX_TRIES):
        aspect, down, right = torch.rand(3, generator=generator).tolist()
        ratio = ASPECT[0] + (ASPECT[1] - ASPECT[0]) * aspect
        height, width = round((pixels * ratio) ** 0.5), round((pixels / ratio) ** 0.5)
        top, left = int(down * size[0]), int(right * size[1])
        if top + height <= size[0] and left + width <= size[1]:
            return top, left, height, width
    height, width = _clamped(pixels, height, size)
    return int(down * (size[0] - height + 1)), int(right * (size[1] - width + 1)), height, width


def _clamped(pixels: float, height: int, size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of a box of that area in the crop, as close to `height` as possible."""
    width = min(round(pixels / min(height, size[0])), size[1])
    return min(round(pixels / width), size[0]), width
