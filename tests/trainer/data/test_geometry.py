"""Weak augmentation: image and mask get the same crop, equal to that of a completely resized image."""

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from trainer.data.batches.geometry import Window, cut_image, cut_mask, draw_window, inside

Size = tuple[int, int]


def make_image(size: Size, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Smooth shapes with noise, uint8 [H, W, 3]."""
    coarse = rng.integers(0, 256, (size[0] // 12 + 2, size[1] // 12 + 2, 3), dtype=np.uint8)
    soft = Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC)
    grain = rng.normal(0, 6, (*size, 3))
    return np.clip(np.asarray(soft) + grain, 0, 255).astype(np.uint8)


def resized_then_cropped(image_HWC: npt.NDArray[np.uint8], window: Window, crop: Size) -> npt.NDArray[np.uint8]:
    """Reference: resize the whole image, crop, pad, flip."""
    resized = Image.fromarray(image_HWC).resize((window.width, window.height), Image.Resampling.BILINEAR)
    part = np.asarray(resized)[window.top : window.top + crop[0], window.left : window.left + crop[1]]
    out = np.zeros((*crop, 3), dtype=np.uint8)
    out[: part.shape[0], : part.shape[1]] = part
    return out[:, ::-1] if window.flip else out


CASES = [
    ((120, 160), (64, 64), (0.5, 2.0)),
    ((90, 300), (80, 120), (0.5, 2.0)),
    ((40, 30), (64, 64), (0.5, 2.0)),
    ((200, 150), (32, 48), (0.05, 0.4)),
    ((50, 50), (50, 50), (1.0, 1.0)),
    ((3, 500), (20, 20), (0.3, 3.0)),
]


@pytest.mark.parametrize(("size", "crop", "scale"), CASES)
def test_cropping_first_equals_resizing_first(size: Size, crop: Size, scale: tuple[float, float]) -> None:
    """Up to the rounding of halves in each of the two passes; a shift would cause large differences at borders."""
    rng = np.random.default_rng(0)
    differences = []
    for _ in range(25):
        image_HWC = make_image(size, rng)
        window = draw_window(size, crop, scale, rng)
        cropped = cut_image(image_HWC, window, crop)
        assert cropped.shape == (*crop, 3)
        differences.append(cropped.astype(int) - resized_then_cropped(image_HWC, window, crop))
    assert np.abs(differences).max() <= 2
    assert np.abs(differences).mean() < 0.03


@pytest.mark.parametrize(("size", "crop", "scale"), CASES)
def test_mask_pixels_are_nearest_neighbours(size: Size, crop: Size, scale: tuple[float, float]) -> None:
    rng = np.random.default_rng(1)
    for _ in range(10):
        mask_HW = rng.integers(0, 200, size)
        window = draw_window(size, crop, scale, rng)
        expected = np.full(crop, 255)
        for row in range(min(crop[0], window.height - window.top)):
            for column in range(min(crop[1], window.width - window.left)):
                y = (window.top + row + 0.5) * size[0] / window.height
                x = (window.left + column + 0.5) * size[1] / window.width
                # If the centre lies between two pixels, both are nearest; round down.
                expected[row, column] = mask_HW[int(y + 1e-9), int(x + 1e-9)]
        assert np.array_equal(cut_mask(mask_HW, window, crop, 255), expected[:, ::-1] if window.flip else expected)


def test_image_and_mask_get_the_same_crop_and_padding_is_ignored() -> None:
    mask_HW = np.arange(12, dtype=np.int64).reshape(3, 4)
    image_HWC = np.repeat(mask_HW[..., None].astype(np.uint8), 3, axis=2)
    window, crop = Window(3, 4, 1, 1, flip=True), (4, 4)
    cut_HW = cut_mask(mask_HW, window, crop, 255)
    inside_HW = inside(window, crop)
    assert (cut_image(image_HWC, window, crop)[..., 0][inside_HW] == cut_HW[inside_HW]).all()
    assert (cut_HW[~inside_HW] == 255).all()
    assert cut_HW[0].tolist() == [255, 7, 6, 5]


def test_edges_of_image_and_mask_stay_aligned() -> None:
    """Left black and class 0, right white and class 1: after any crop the edges agree up to one pixel."""
    rng = np.random.default_rng(2)
    mask_HW = np.zeros((60, 80), dtype=np.int64)
    mask_HW[:, 37:] = 1
    image_HWC = np.repeat((mask_HW * 255).astype(np.uint8)[..., None], 3, axis=2)
    for _ in range(50):
        window = draw_window((60, 80), (40, 40), (0.5, 2.0), rng)
        cut_HW = cut_mask(mask_HW, window, (40, 40), 255)
        bright_HW = cut_image(image_HWC, window, (40, 40))[..., 0] >= 128
        differs = (bright_HW != (cut_HW == 1)) & (cut_HW != 255)
        assert differs.sum(axis=1).max() <= 1


def test_windows_lie_inside_the_image_and_reach_every_corner() -> None:
    rng = np.random.default_rng(3)
    corners = set()
    for _ in range(300):
        window = draw_window((10, 12), (9, 9), (1.0, 1.0), rng)
        corners.add((window.top, window.left, window.flip))
    assert corners == {(top, left, flip) for top in range(2) for left in range(4) for flip in (False, True)}
