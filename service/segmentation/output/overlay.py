"""Render the overlay: the image with class colours, class borders and a legend, as JPEG."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from service.errors import ImageTooLarge
from service.segmentation.decode import Pixels
from service.segmentation.inference.engine import Mask
from service.segmentation.output.class_table import ClassTable
from service.segmentation.output.legend_image import draw_legend
from service.segmentation.output.png import encode_image, keep_classes, palette

JPEG_QUALITY = 90
# Longest side that libjpeg encodes.
MAX_JPEG_SIDE_PX = 65_500
OPACITY = 0.5


def overlay_jpeg(
    image_HW3: Pixels,
    mask_HW: Mask,
    class_table: ClassTable,
    *,
    classes: frozenset[int] | None = None,
    legend: bool = True,
) -> bytes:
    """Paint the class colours over the image, with white lines between classes.

    Args:
        image_HW3: uint8 [H, W, 3], RGB.
        mask_HW: uint8 or uint16 [H, W], class ids below the number of colours.
        class_table: Colours and names.
        classes: The classes to paint; None: all.
        legend: Draw the legend under the picture, unless the JPEG would be too high. It may make the picture wider.

    Raises:
        ImageTooLarge: A side is longer than a JPEG allows.
    """
    height, width = mask_HW.shape
    if max(height, width) > MAX_JPEG_SIDE_PX:
        raise ImageTooLarge(
            f"A JPEG has at most {MAX_JPEG_SIDE_PX} pixels a side and the image has {width}x{height}: request "
            "image/png or application/json."
        )
    shown_HW = keep_classes(mask_HW, classes, class_table)
    picture = Image.blend(Image.fromarray(image_HW3), _class_colors(shown_HW, class_table), OPACITY)
    if classes is not None:
        picture.paste(Image.fromarray(image_HW3), mask=Image.fromarray(~np.isin(mask_HW, list(classes))))
    picture.paste((255, 255, 255), mask=Image.fromarray(_borders(shown_HW)))
    if legend:
        picture = _with_legend(picture, mask_HW, class_table, classes)
    return encode_image(picture, "JPEG", quality=JPEG_QUALITY)


def _class_colors(mask_HW: Mask, class_table: ClassTable) -> Image.Image:
    if mask_HW.dtype == np.uint8:
        indexed = Image.fromarray(mask_HW)
        indexed.putpalette(palette(class_table).tobytes())
        return indexed.convert("RGB")
    colors = np.asarray(class_table.colors, dtype=np.uint8)
    return Image.fromarray(np.take(colors, mask_HW, axis=0, mode="clip"))


def _with_legend(
    picture: Image.Image, mask_HW: Mask, class_table: ClassTable, classes: frozenset[int] | None
) -> Image.Image:
    # Pillow counts bytes directly; numpy would convert them to 8-byte integers first.
    pixels = Image.fromarray(mask_HW).histogram() if mask_HW.dtype == np.uint8 else np.bincount(mask_HW.ravel())
    shown = [i for i in np.flatnonzero(pixels).tolist() if classes is None or i in classes]
    legend = draw_legend({i: pixels[i] / mask_HW.size for i in shown}, class_table, picture.size)
    if legend is None or picture.height + legend.height > MAX_JPEG_SIDE_PX:
        return picture
    page = Image.new("RGB", (max(picture.width, legend.width), picture.height + legend.height), "white")
    page.paste(picture)
    page.paste(legend, (0, picture.height))
    return page


def _borders(mask_HW: Mask) -> npt.NDArray[np.bool_]:
    border = np.zeros(mask_HW.shape, dtype=bool)
    np.not_equal(mask_HW[:, :-1], mask_HW[:, 1:], out=border[:, :-1])
    border[:-1] |= mask_HW[:-1] != mask_HW[1:]
    return border
