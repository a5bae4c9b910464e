"""What the pixel values of a mask mean."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Legend:
    """Names and colours (RGB, 0..255) by class id: `names[3]` is the class whose pixels are 3."""

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    ignore_index: int
