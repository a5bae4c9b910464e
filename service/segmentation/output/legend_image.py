"""Draw the legend of an overlay: colour, name and share of each class."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont

from service.segmentation.output.class_table import ClassTable

# Text height: 1/32 of the picture's shorter side, within these limits.
TEXT_FRACTION, MIN_TEXT_PX, MAX_TEXT_PX = 32, 12, 40
# Limits on what is drawn, for any number of classes and length of names.
MAX_ENTRIES, MAX_LETTERS = 40, 40
TEXT_COLOR, FRAME_COLOR = (40, 40, 40), (160, 160, 160)


def draw_legend(
    fractions: dict[int, float], class_table: ClassTable, picture_size: tuple[int, int]
) -> Image.Image | None:
    """Draw the legend, to be placed under the picture: RGB on white, or None if there are no classes.

    Args:
        fractions: Share of the image by class id, 0..1; the largest is listed first.
        class_table: Names and colours.
        picture_size: Width and height of the picture. The legend is as wide, or wider if one entry needs it.
    """
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
