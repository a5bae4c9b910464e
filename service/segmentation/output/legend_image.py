"""The key of an overlay: the colour, the name and the share of each class, in columns, to be put under the picture."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont

from service.segmentation.output.class_table import ClassTable

# The height of letters: a 32nd of the picture's shorter side, and never too small to be read.
SHARE_OF_SIDE, LEAST_PX, MOST_PX = 32, 12, 40
# What is drawn at most, whatever the model tells apart and however its classes are called.
MAX_ENTRIES, MAX_LETTERS = 40, 40
INK, FRAME = (40, 40, 40), (160, 160, 160)


def draw_legend(shares: dict[int, float], legend: ClassTable, picture: tuple[int, int]) -> Image.Image | None:
    """Draw it.

    Args:
        shares: Of the image, 0..1, by class id; the largest comes first.
        legend: Names and colours.
        picture: Width and height of the picture that it goes under: as wide, or wider where one entry needs it.

    Returns:
        RGB on white; None where there are no classes.
    """
    if not shares:
        return None
    size = min(MOST_PX, max(LEAST_PX, min(picture) // SHARE_OF_SIDE))
    font = ImageFont.load_default(size)
    largest = sorted(shares, key=lambda class_id: -shares[class_id])
    texts = [f"{_short(legend.names[i])}  {_percent(shares[i])}" for i in largest[:MAX_ENTRIES]]
    colors = [legend.colors[i] for i in largest[:MAX_ENTRIES]]
    if len(largest) > MAX_ENTRIES:
        texts.append(f"and {len(largest) - MAX_ENTRIES} more")
        colors.append((255, 255, 255))
    # An entry is a square of the letters' height, half of that as a gap, and the text.
    cell = int(max(font.getlength(text) for text in texts)) + 3 * size, size * 3 // 2
    columns = max(1, min(len(texts), (picture[0] - size) // cell[0]))
    rows = -(-len(texts) // columns)
    key = Image.new("RGB", (max(picture[0], cell[0] + size), rows * cell[1] + size), "white")
    draw = ImageDraw.Draw(key)
    for number, (text, color) in enumerate(zip(texts, colors, strict=True)):
        x, y = size // 2 + number // rows * cell[0], size // 2 + number % rows * cell[1]
        draw.rectangle((x, y, x + size, y + size), color, FRAME)
        draw.text((x + size * 3 // 2, y + size // 2), text, INK, font, anchor="lm")
    return key


def _short(name: str) -> str:
    line = " ".join(name.split())
    return line if len(line) <= MAX_LETTERS else line[: MAX_LETTERS - 3] + "..."


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.001 else "<0.1%"
