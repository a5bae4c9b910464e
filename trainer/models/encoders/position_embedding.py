"""Resample DINOv2's position embedding to other image sizes, as its authors do.

DINOv2 (arXiv 2304.07193) was trained at 518 pixels: 37x37 patches of 14. For h x w patches its code, and so UniMatch V2
(arXiv 2410.10777), resamples the table bicubically with the scale factors (h + 0.1) / 37 and (w + 0.1) / 37, without
antialiasing. timm resamples to the exact size with antialiasing. For 57x57 patches, Cityscapes' window, the difference
is 1% of a smooth table and 12% of a random one (measured in tests/trainer/models/test_dinov2.py).

Products with small matrices work in an exported graph with dynamic sides, and have a deterministic gradient.
"""

# G rows and columns of the trained table, h w of the patches, D channels, T the four taps of the cubic kernel

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

OFFSET = 0.1
"""Patches that DINOv2 adds to each side in the scale factor."""
CUBIC = -0.75
"""Coefficient of the cubic convolution kernel (Keys, 1981), PyTorch's value without antialiasing."""


def resample(table_GGD: Tensor, height: int, width: int) -> Tensor:
    """Resample the table, float32 [G,G,D], to [height,width,D], in patches; unchanged for the trained size."""
    side = table_GGD.shape[0]
    # An exported graph cannot branch; there the product with two identities gives the same.
    if not torch.compiler.is_exporting() and (height, width) == (side, side):
        return table_GGD
    row_h = torch.arange(height, device=table_GGD.device)
    column_w = torch.arange(width, device=table_GGD.device)
    # As in the original, the offset applies only if a side differs.
    differs = ((row_h[-1] + 1 != side) | (column_w[-1] + 1 != side)).to(torch.float32)
    rows_hG = _weights(row_h, side, OFFSET * differs)
    columns_wG = _weights(column_w, side, OFFSET * differs)
    with full_precision(table_GGD.device.type):
        table_hGD = (rows_hG @ table_GGD.flatten(1)).reshape(height, side, -1)
        return torch.matmul(columns_wG, table_hGD)


def full_precision(device_type: str) -> AbstractContextManager[object]:
    """Disable autocast, which would round the products, only if it is on: the exported graph gets no extra nodes."""
    if torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


def _weights(index_N: Tensor, side: int, offset: Tensor) -> Tensor:
    """Weight of each old position in each of the N new ones, float32 [N,side]."""
    position_N = (index_N + 0.5) * (side / (index_N[-1] + 1 + offset)) - 0.5
    left_N = position_N.floor()
    tap_T = torch.arange(-1, 3, device=index_N.device)
    weight_NT = _cubic((position_N - left_N)[:, None] - tap_T)
    source_NT = (left_N[:, None] + tap_T).clamp(0, side - 1)
    hit_NTG = source_NT[:, :, None] == torch.arange(side, device=index_N.device)
    return (hit_NTG * weight_NT[:, :, None]).sum(dim=1)


def _cubic(distance: Tensor) -> Tensor:
    """Cubic convolution kernel; distances in -2..2, in positions of the table."""
    x = distance.abs()
    near = ((CUBIC + 2) * x - (CUBIC + 3)) * x * x + 1
    far = ((CUBIC * x - 5 * CUBIC) * x + 8 * CUBIC) * x - 4 * CUBIC
    return torch.where(x <= 1, near, far)
