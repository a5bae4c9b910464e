"""CutMix (arXiv 1905.04899): a box of each image is replaced by the same box of another image of the batch.

Box area 0.02-0.4 of the crop, aspect 0.3-3.33, with probability 0.5 an image (UniMatch V2's published settings).
"""

# B batch, H W pixels; "..." is any number of channel dimensions

import torch
from torch import Tensor

AREA = (0.02, 0.4)
ASPECT = (0.3, 1 / 0.3)


def draw_boxes(batch: int, size: tuple[int, int], probability: float, generator: torch.Generator) -> Tensor:
    """Bool [B,H,W] on the CPU: True inside each image's box, all False for images that are not mixed.

    Args:
        batch: number of images B.
        size: height H and width W, in pixels.
        probability: of an image being mixed, 0..1.
        generator: a CPU generator.
    """
    box_BHW = torch.zeros((batch, *size), dtype=torch.bool)
    for box_HW in box_BHW:
        if float(torch.rand((), generator=generator)) < probability:
            top, left, height, width = _draw_box(size, generator)
            box_HW[top : top + height, left : left + width] = True
    return box_BHW


def mix(tensor: Tensor, box_BHW: Tensor) -> Tensor:
    """Take from the next image of the batch what lies in the box: [B,H,W] or [B,C,H,W] to the same shape.

    Deviation: the authors take the partner from the flipped batch, where the middle image of an odd batch meets itself;
    a roll by one gives every image another one as its partner.
    """
    inside = box_BHW if tensor.ndim == box_BHW.ndim else box_BHW[:, None]
    return torch.where(inside, tensor.roll(1, dims=0), tensor)


def _draw_box(size: tuple[int, int], generator: torch.Generator) -> tuple[int, int, int, int]:
    # The area is drawn once: drawn anew with the place, large boxes, which seldom fit, would be rare.
    area = AREA[0] + (AREA[1] - AREA[0]) * float(torch.rand((), generator=generator))
    pixels = area * size[0] * size[1]
    while True:
        aspect, down, right = torch.rand(3, generator=generator).tolist()
        ratio = ASPECT[0] + (ASPECT[1] - ASPECT[0]) * aspect
        height, width = round((pixels * ratio) ** 0.5), round((pixels / ratio) ** 0.5)
        top, left = int(down * size[0]), int(right * size[1])
        if top + height <= size[0] and left + width <= size[1]:
            return top, left, height, width
