"""A picture of an answer for people: the image with its classes painted over it, and under it what they are called."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from service.errors import ImageTooLarge
from service.segmentation.decode import Pixels
from service.segmentation.inference.engine import Mask
from service.segmentation.output.class_table import ClassTable
from service.segmentation.output.legend_image import draw_legend
from service.segmentation.output.png import palette, restricted, saved

JPEG_QUALITY = 90
# What libjpeg writes at most.
JPEG_SIDE_PX = 65_500
OPACITY = 0.5


def overlay_jpeg(
    image_HW3: Pixels, mask_HW: Mask, legend: ClassTable, *, only: frozenset[int] | None = None, key: bool = True
) -> bytes:
    """The image with the class colours over it and white lines where one class ends, as a JPEG.

    Args:
        image_HW3: uint8 [H, W, 3], RGB.
        mask_HW: uint8 or uint16 [H, W], class ids below the number of colours.
        legend: Colours and names.
        only: The classes that are painted; None: all.
        key: Whether the names of the classes stand under the picture, which makes it higher, and wider where the names
            need it. Left out where a JPEG would be too high for it.

    Raises:
        ImageTooLarge: A side is longer than a JPEG's may be.
    """
    height, width = mask_HW.shape
    if max(height, width) > JPEG_SIDE_PX:
        raise ImageTooLarge(
            f"A JPEG has up to {JPEG_SIDE_PX} pixels a side and the image {width}x{height}: ask for image/png or "
            "application/json."
        )
    shown_HW = restricted(mask_HW, only, legend)
    picture = Image.blend(Image.fromarray(image_HW3), _tint(shown_HW, legend), OPACITY)
    if only is not None:
        picture.paste(Image.fromarray(image_HW3), mask=Image.fromarray(~np.isin(mask_HW, list(only))))
    picture.paste((255, 255, 255), mask=Image.fromarray(_borders(shown_HW)))
    if key:
        picture = _with_key(picture, mask_HW, legend, only)
    return saved(picture, "JPEG", quality=JPEG_QUALITY)


def _tint(mask_HW: Mask, legend: ClassTable) -> Image.Image:
    if mask_HW.dtype == np.uint8:
        indexed = Image.fromarray(mask_HW)
        indexed.putpalette(palette(legend).tobytes())
        return indexed.convert("RGB")
    colors = np.asarray(legend.colors, dtype=np.uint8)
    return Image.fromarray(np.take(colors, mask_HW, axis=0, mode="clip"))


def _with_key(picture: Image.Image, mask_HW: Mask, legend: ClassTable, only: frozenset[int] | None) -> Image.Image:
    # Pillow counts bytes as they are; numpy makes eight of each first.
    pixels = Image.fromarray(mask_HW).histogram() if mask_HW.dtype == np.uint8 else np.bincount(mask_HW.ravel())
    shares = {i: pixels[i] / mask_HW.size for i in np.flatnonzero(pixels).tolist() if only is None or i in only}
    key = draw_legend(shares, legend, picture.size)
    if key is None or picture.height + key.height > JPEG_SIDE_PX:
        return picture
    page = Image.new("RGB", (max(picture.width, key.width), picture.height + key.height), "white")
    page.paste(picture)
    page.paste(key, (0, picture.height))
    return page


def _borders(mask_HW: Mask) -> npt.NDArray[np.bool_]:
    """Pixels whose right or lower neighbour is of another class."""
    border = np.zeros(mask_HW.shape, dtype=bool)
    np.not_equal(mask_HW[:, :-1], mask_HW[:, 1:], out=border[:, :-1])
    border[:-1] |= mask_HW[:-1] != mask_HW[1:]
    return border
