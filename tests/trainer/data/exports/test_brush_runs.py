import numpy as np
import pytest

from tests.trainer.data.exports.naive_brush import read_brush
from trainer.data.exports.brush_runs import MAX_RUN, brush_runs

ROW = np.arange(12) % 5 == 0


@pytest.mark.parametrize(
    "mask",
    [
        np.zeros((3, 2), dtype=bool),
        np.ones((1, 1), dtype=bool),
        np.tile(ROW, (7, 3)),
        # Runs of exactly the longest count, one pixel more, and several times as many.
        np.arange(7 * MAX_RUN // 4).reshape(7, -1) >= MAX_RUN // 4,
        np.arange(7 * MAX_RUN // 4).reshape(7, -1) > MAX_RUN // 4,
    ],
    ids=["empty", "one pixel", "short runs", "longest run", "longer runs"],
)
def test_brush_shows_exactly_the_mask(mask: np.ndarray) -> None:
    expected = np.repeat(mask[..., None], 4, axis=2) * np.uint8(255)
    np.testing.assert_array_equal(read_brush(brush_runs(mask), mask.shape), expected)


def test_bits_of_a_brush() -> None:
    stream = "".join(f"{byte:08b}" for byte in brush_runs(np.array([[True]])))
    # 4 values of 8 bits; sizes of counts 4, 8, 12, 16; one run: size 0, 4 - 1, 255; the rest of the byte.
    head = f"{4:032b}" + f"{7:05b}" + f"{3:04b}{7:04b}{11:04b}{15:04b}"
    assert stream == head + "1" + "00" + "0011" + "11111111" + "0000"
