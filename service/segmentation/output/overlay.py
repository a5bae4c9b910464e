"""Render the overlay: the image with class colours, class borders and a legend, as JPEG."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from service.errors import ImageTooLarge
from service.segmentation.decode import Pixels
from service.segmentation.inference.predictor import Mask
from service.segmentation.output.class_table import ClassTable
from service.segmentation.output.png import encode_image, keep_classes, palette

JPEG_QUALITY = 90
MAX_JPEG_SIDE_PX = 65_500
OPACITY = 0.5
# Text height of the legend: 1/32 of the picture's shorter side, within these limits.
TEXT_FRACTION, MIN_TEXT_PX, MAX_TEXT_PX = 32, 12, 40
MAX_ENTRIES, MAX_LETTERS = 40, 40
TEXT_COLOR, FRAME_COLOR = (40, 40, 40), (160, 160, 160)


def overlay_jpeg(
    image_HW3: Pixels,
    mask_HW: Mask,
    class_table: ClassTable,
    *,
    classes: frozenset[int] | None = None,
    legend: bool = True,
) -> bytes:
    """Paint the colours of `classes` (None: all) over the image, with white lines between classes.

    The legend may make the picture wider; it is left out if the JPEG would be too high. The image is uint8 [H, W, 3]
    RGB, the mask uint8 or uint16 [H, W] of class ids below the number of colours.

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
    legend = _draw_legend({i: pixels[i] / mask_HW.size for i in shown}, class_table, picture.size)
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


def _draw_legend(
    fractions: dict[int, float], class_table: ClassTable, picture_size: tuple[int, int]
) -> Image.Image | None:
    if not fractions:
        return None
    size = min(MAX_TEXT_PX, max(MIN_TEXT_PX, min(picture_size) // TEXT_FRACTION))
    font = ImageFont.load_default(size)
    largest = sorted(fractions, key=lambda class_id: -fractions[class_id])
    texts = [f"{_shorten(class_table.names[i])}  {_percent(fractions[i])}" for i in largest[:MAX_ENTRIES]]
    colors = [class_table.colors[i] for i in largest[:MAX_ENTRIES]]
    if len(largest) > MAX_ENTRIES:
        texts.append(f"and {len(largest) - MAX_ENTRIES} more")
        colors.append((255, 255, 255))
    # An entry is a square as high as the text, a gap of half of that, and the text.
    entry_width, entry_height = int(max(font.getlength(text) for text in texts)) + 3 * size, size * 3 // 2
    columns = max(1, min(len(texts), (picture_size[0] - size) // entry_width))
    rows = -(-len(texts) // columns)
    legend = Image.new("RGB", (max(picture_size[0], entry_width + size), rows * entry_height + size), "white")
    draw = ImageDraw.Draw(legend)
    for number, (text, color) in enumerate(zip(texts, colors, strict=True)):
        x, y = size // 2 + number // rows * entry_width, size // 2 + number % rows * entry_height
        draw.rectangle((x, y, x + size, y + size), color, FRAME_COLOR)
        draw.text((x + size * 3 // 2, y + size // 2), text, TEXT_COLOR, font, anchor="lm")
    return legend


def _shorten(name: str) -> str:
    line = " ".join(name.split())
    return line if len(line) <= MAX_LETTERS else line[: MAX_LETTERS - 3] + "..."


def _percent(fraction: float) -> str:
    return f"{fraction:.1%}" if fraction >= 0.001 else "<0.1%"
