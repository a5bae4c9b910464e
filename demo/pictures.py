"""One sheet: image, truth, before and after side by side, with a legend of the classes."""

# H, W pixels of one picture; S pixels of the sheet

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

COLUMNS = ("image", "truth", "before", "after")
CELL, GAP, HEADER, SWATCH = 256, 12, 34, 22
PAPER, INK = (255, 255, 255), (30, 30, 30)

Picture = npt.NDArray[np.uint8]
Color = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the sheet: an image uint8 [H, W, 3], and ids uint8 [H, W]."""

    image: Picture
    truth: Picture
    before: Picture
    after: Picture


def draw_sheet(target: Path, rows: list[Row], classes: dict[str, Color]) -> None:
    """Write the sheet as PNG.

    Args:
        target: The file.
        rows: From top to bottom.
        classes: Colour by name, in the order of the ids.
    """
    legend_lines = -(-len(classes) // len(COLUMNS))
    width = GAP + len(COLUMNS) * (CELL + GAP)
    height = HEADER + len(rows) * (CELL + GAP) + legend_lines * (SWATCH + GAP) + GAP
    sheet = Image.new("RGB", (width, height), PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(18)
    for column, title in enumerate(COLUMNS):
        pen.text((GAP + column * (CELL + GAP), 8), title, fill=INK, font=font)
    palette = np.full((256, 3), 0, dtype=np.uint8)
    palette[: len(classes)] = list(classes.values())
    for number, row in enumerate(rows):
        pictures = (row.image, palette[row.truth], palette[row.before], palette[row.after])
        for column, picture in enumerate(pictures):
            cell = Image.fromarray(picture).resize((CELL, CELL), Image.Resampling.NEAREST)
            sheet.paste(cell, (GAP + column * (CELL + GAP), HEADER + number * (CELL + GAP)))
    for number, (name, color) in enumerate(classes.items()):
        line, column = divmod(number, len(COLUMNS))
        left = GAP + column * (CELL + GAP)
        top = HEADER + len(rows) * (CELL + GAP) + line * (SWATCH + GAP)
        pen.rectangle((left, top, left + SWATCH, top + SWATCH), fill=color, outline=INK)
        pen.text((left + SWATCH + 8, top), name, fill=INK, font=font)
    sheet.save(target)
