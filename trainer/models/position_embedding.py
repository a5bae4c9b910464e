"""DINOv2's position embedding at other sizes than the one it was trained at, as its authors resample it.

DINOv2 (arXiv 2304.07193) was trained at 518 pixels: 37x37 patches of 14. For h x w patches its code, and so UniMatch V2
(arXiv 2410.10777), resamples the table bicubically with the scale factors (h + 0.1) / 37 and (w + 0.1) / 37, without
antialiasing. timm resamples to the size itself, with antialiasing: up to a tenth of a patch elsewhere, and smoother
where the image is small. For 57x57 patches, Cityscapes' window, that is 1% of a smooth table and 12% of one that is
noise (measured in tests/trainer/test_models_dinov2.py). The published weights have learnt to live with the former.

Bicubic resampling is linear along each axis, so it is two products with small matrices here: the same in PyTorch and in
an exported graph with dynamic sides, and with a gradient that does not depend on the order of atomic additions.
"""

# G H W rows and columns of the trained table, h w rows and columns of patches, D width, T the four taps of a cubic

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

OFFSET = 0.1
"""Patches that DINOv2 adds to each side before it divides; its variants with registers add none, and antialias."""
CUBIC = -0.75
"""The free coefficient of the cubic convolution kernel (Keys, 1981), as PyTorch has it without antialiasing."""


def resample(table_GGD: Tensor, height: int, width: int) -> Tensor:
    """The table for an image of `height` x `width` patches.

    Args:
        table_GGD: position embedding of the patches, float32 [G,G,D].
        height: of the image, in patches.
        width: of the image, in patches.

    Returns:
        Float32 [height,width,D]; the table itself at the size that it was trained for.
    """
    side = table_GGD.shape[0]
    # In a graph with dynamic sides there is no such early way out; the product with two identities does the same.
    if not torch.compiler.is_exporting() and (height, width) == (side, side):
        return table_GGD
    row_h = torch.arange(height, device=table_GGD.device)
    column_w = torch.arange(width, device=table_GGD.device)
    # Only where a side differs is anything resampled: at the trained size the original returns the table as it is.
    differs = ((row_h[-1] + 1 != side) | (column_w[-1] + 1 != side)).to(torch.float32)
    rows_hG = _weights(row_h, side, OFFSET * differs)
    columns_wG = _weights(column_w, side, OFFSET * differs)
    with _full_precision(table_GGD.device.type):
        table_hGD = (rows_hG @ table_GGD.flatten(1)).reshape(height, side, -1)
        return torch.matmul(columns_wG, table_hGD)


def _full_precision(device_type: str) -> AbstractContextManager[object]:
    """No autocast, which would round the products to half of the bits; a graph without autocast gets no trace of it."""
    if torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


def _weights(index_N: Tensor, side: int, offset: Tensor) -> Tensor:
    """How much each of the N new places takes from each of the `side` old ones, float32 [N,side]."""
    place_N = (index_N + 0.5) * (side / (index_N[-1] + 1 + offset)) - 0.5
    left_N = place_N.floor()
    tap_T = torch.arange(-1, 3, device=index_N.device)
    weight_NT = _cubic((place_N - left_N)[:, None] - tap_T)
    source_NT = (left_N[:, None] + tap_T).clamp(0, side - 1)
    hit_NTG = source_NT[:, :, None] == torch.arange(side, device=index_N.device)
    return (hit_NTG * weight_NT[:, :, None]).sum(dim=1)


def _cubic(distance: Tensor) -> Tensor:
    """Cubic convolution; distances lie in -2..2, in places of the table."""
    x = distance.abs()
    near = ((CUBIC + 2) * x - (CUBIC + 3)) * x * x + 1
    far = ((CUBIC * x - 5 * CUBIC) * x + 8 * CUBIC) * x - 4 * CUBIC
    return torch.where(x <= 1, near, far)
