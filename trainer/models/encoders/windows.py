"""Split maps into windows, with zeros at the right and lower border.

timm's own functions compute the padding as a remainder of a remainder. PyTorch's exporter then no longer knows that the
padded side is a multiple of the window, and takes minutes to reason about each shape.
"""

# B batch, H W cells of a map, R C rows and columns of windows, T U cells of a window, D channels

from collections.abc import Callable

import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from torch import Tensor


def count(side: int, window: int) -> int:
    """Windows that cover a side."""
    # Not -(-side // window): an ONNX graph divides integers towards zero.
    return (side + window - 1) // window


def pad(map_BHWD: Tensor, window: tuple[int, int]) -> Tensor:
    """Fill a map [B,H,W,D] with zeros to multiples of the window."""
    height, width = map_BHWD.shape[1:3]
    bottom, right = (count(side, each) * each - side for side, each in zip((height, width), window, strict=True))
    return F.pad(map_BHWD, (0, 0, 0, right, 0, bottom))


def split(map_BHWD: Tensor, window: tuple[int, int]) -> Tensor:
    """A map [B,H,W,D], filled with zeros, to windows [B*R*C,T,U,D]."""
    (batch, height, width, channels), (tall, wide) = map_BHWD.shape, window
    rows, columns = count(height, tall), count(width, wide)
    map_BRTCUD = pad(map_BHWD, window).reshape(batch, rows, tall, columns, wide, channels)
    return map_BRTCUD.transpose(2, 3).reshape(batch * rows * columns, tall, wide, channels)


def join(window_WTUD: Tensor, batch: int, size: tuple[int, int]) -> Tensor:
    """The inverse: windows [B*R*C,T,U,D] to the map [B,H,W,D] of `size` (height, width), without the filling."""
    (_, tall, wide, channels), (height, width) = window_WTUD.shape, size
    rows, columns = count(height, tall), count(width, wide)
    map_BRTCUD = window_WTUD.reshape(batch, rows, columns, tall, wide, channels).transpose(2, 3)
    map_BHWD = map_BRTCUD.reshape(batch, rows * tall, columns * wide, channels)
    return map_BHWD.narrow(1, 0, height).narrow(2, 0, width)


def windowed(attention: Callable[[Tensor], Tensor], map_BHWD: Tensor, window: tuple[int, int]) -> Tensor:
    """Apply attention over tokens [W,N,D] to each window of a map [B,H,W,D]."""
    mixed_WND = attention(split(map_BHWD, window).flatten(1, 2))
    batch, height, width, _ = map_BHWD.shape
    return join(mixed_WND.reshape(-1, *window, mixed_WND.shape[-1]), batch, (height, width))
