"""Draw a comparison picture: image, label, mask before and mask after in one row per image, and a legend."""

# H, W pixels of one image

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

COLUMNS = ("image", "label", "before", "after")
# Pixels: side of a cell, space between cells, height of the header, side of a legend square.
CELL, GAP, HEADER, SWATCH = 256, 12, 34, 22
BACKGROUND, TEXT = (255, 255, 255), (30, 30, 30)

Picture = npt.NDArray[np.uint8]
Color = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Row:
    """One row: an RGB image, uint8 [H, W, 3], and three masks of class ids, uint8 [H, W]."""

    image: Picture
    label: Picture
    before: Picture
    after: Picture


def draw_comparison(target: Path, rows: list[Row], classes: dict[str, Color]) -> None:
    """Write a PNG of `rows` from top to bottom; `classes` has the colour by name, in the order of the ids."""
    legend_rows = -(-len(classes) // len(COLUMNS))
    width = GAP + len(COLUMNS) * (CELL + GAP)
    height = HEADER + len(rows) * (CELL + GAP) + legend_rows * (SWATCH + GAP) + GAP
    canvas = Image.new("RGB", (width, height), BACKGROUND)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(18)
    for column, title in enumerate(COLUMNS):
        draw.text((GAP + column * (CELL + GAP), 8), title, fill=TEXT, font=font)
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[: len(classes)] = list(classes.values())
    for number, row in enumerate(rows):
        pictures = (row.image, palette[row.label], palette[row.before], palette[row.after])
        for column, picture in enumerate(pictures):
            cell = Image.fromarray(picture).resize((CELL, CELL), Image.Resampling.NEAREST)
            canvas.paste(cell, (GAP + column * (CELL + GAP), HEADER + number * (CELL + GAP)))
    for number, (name, color) in enumerate(classes.items()):
        legend_row, column = divmod(number, len(COLUMNS))
        left = GAP + column * (CELL + GAP)
        top = HEADER + len(rows) * (CELL + GAP) + legend_row * (SWATCH + GAP)
        draw.rectangle((left, top, left + SWATCH, top + SWATCH), fill=color, outline=TEXT)
        draw.text((left + SWATCH + 8, top), name, fill=TEXT, font=font)
    canvas.save(target)
