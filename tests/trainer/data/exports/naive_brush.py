"""Read Label Studio's brush bit by bit, as its front end does."""

import numpy as np
import numpy.typing as npt


def read_brush(stream: list[int], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """The channels of a brush, [H, W, 4]."""
    bits = "".join(f"{byte:08b}" for byte in stream)
    place = 0

    def number(width: int) -> int:
        nonlocal place
        place += width
        return int(bits[place - width : place], 2)

    total, width = number(32), number(5) + 1
    counts = [number(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < total:
        is_run, count = number(1), number(counts[number(2)]) + 1
        values += [number(width)] * count if is_run else [number(width) for _ in range(count)]
    # Only the rest of the last byte is left.
    assert len(bits) - place < 8
    return np.array(values, dtype=np.uint8).reshape(*size, 4)
