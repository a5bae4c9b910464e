"""From the values that a mask stores to class ids: one table, whatever the data set.

Pascal VOC stores ids, Cityscapes its own numbers, ADE20K ids plus one with 0 for "other", a drawing program colours.
What is in no class and not to be ignored is an error with its count: silently taken for something else, it would be
learnt.
"""

# H W pixels, C channels.

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.data.decode import ImageError, Source, decode_colors, decode_values

NAMED = 8
"""So many unknown values are named in an error; the rest are counted."""

Color = tuple[int, int, int]
Stored = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True)
class Labels:
    """What the stored values of a mask mean.

    Attributes:
        meaning: (stored value, class id or ignore_index) pairs; a colour r, g, b is stored as r * 65536 + g * 256 + b.
        ignore_index: the value of pixels that do not count.
        colors: whether the masks are pictures of colours and not of numbers.
    """

    meaning: tuple[tuple[int, int], ...]
    ignore_index: int
    colors: bool = False

    @classmethod
    def of_values(cls, meaning: Mapping[int, int], ignored: Iterable[int], ignore_index: int) -> "Labels":
        """Numbers: class by stored value, and values to ignore."""
        return cls(tuple((dict.fromkeys(ignored, ignore_index) | dict(meaning)).items()), ignore_index)

    @classmethod
    def of_colors(cls, meaning: Mapping[Color, int], ignored: Iterable[Color], ignore_index: int) -> "Labels":
        """Colours: class by (red, green, blue), and colours to ignore."""
        both = dict.fromkeys(ignored, ignore_index) | dict(meaning)
        return cls(tuple((_key(color), index) for color, index in both.items()), ignore_index, colors=True)

    @classmethod
    def of_ids(cls, classes: int, ignore_index: int) -> "Labels":
        """Masks that hold the ids 0..classes-1 and `ignore_index` as they are."""
        return cls.of_values({index: index for index in range(classes)}, (ignore_index,), ignore_index)

    def read(self, path: Path, size: tuple[int, int]) -> npt.NDArray[np.int64]:
        """Read a mask file; see `decode`."""
        return self.decode(path, path, size)

    def decode(self, source: Source, name: Path, size: tuple[int, int]) -> npt.NDArray[np.int64]:
        """Read a mask from a file or from memory.

        Args:
            source: the mask.
            name: what errors call it.
            size: the (height, width) that it must have: its photograph's.

        Returns:
            HW int64, class ids or ignore_index.

        Raises:
            ImageError: it is missing, damaged, of another kind or size, or holds a value that means nothing.
        """
        stored_HW = self.stored(source, name)
        if stored_HW.shape != size:
            found, wanted = ("x".join(map(str, shape[::-1])) for shape in (stored_HW.shape, size))
            raise ImageError(
                f"{name}: the mask is {found} pixels, its photograph {wanted} (width x height); export it at that size"
            )
        mask_HW = self.ids(stored_HW)
        if (lost_HW := mask_HW < 0).any():
            raise ImageError(f"{name}: {self.unknown(stored_HW[lost_HW])}")
        return mask_HW

    def stored(self, source: Source, name: Path) -> Stored:
        """The mask's values as the file has them, HW; a colour as r * 65536 + g * 256 + b. Raises ImageError."""
        if not self.colors:
            return decode_values(source, name)
        color_HWC = decode_colors(source, name).astype(np.int32)
        return color_HWC[..., 0] << 16 | color_HWC[..., 1] << 8 | color_HWC[..., 2]

    def ids(self, stored_HW: Stored) -> npt.NDArray[np.int64]:
        """Class ids of stored values, HW int64; -1 = in no class and not ignored."""
        table = _table(self.meaning, 1 << 24 if self.colors else 1 << 16)
        # "clip" spares the check of every index.
        mask_HW = table.take(stored_HW, mode="clip")
        if stored_HW.dtype.itemsize > 2:
            mask_HW[(stored_HW < 0) | (stored_HW >= len(table))] = 0
        return np.invert(mask_HW, dtype=np.int64)

    def unknown(self, stored: Stored) -> str:
        """Words on stored values that mean nothing, with their counts."""
        values, counts = np.unique(stored, return_counts=True)
        order = np.argsort(-counts)[:NAMED]
        named = ", ".join(f"{self.name(int(values[i]))} ({counts[i]} pixels)" for i in order)
        more = f" and {len(values) - NAMED} more" if len(values) > NAMED else ""
        return (
            f"holds {named}{more}: in no class and not ignored; known are {self._known()}; "
            "list the class in classes.toml or repaint the mask"
        )

    def name(self, stored: int) -> str:
        """A stored value as people write it: 7, or the colour [128, 64, 0]."""
        return str([stored >> 16, stored >> 8 & 255, stored & 255]) if self.colors else str(stored)

    def _known(self) -> str:
        known = sorted(stored for stored, _ in self.meaning)
        if not self.colors:
            return _ranges(known)
        return ", ".join(map(self.name, known[:NAMED])) + (" and others" if len(known) > NAMED else "")


@lru_cache(maxsize=8)
def _table(meaning: tuple[tuple[int, int], ...], size: int) -> npt.NDArray[np.int32]:
    """The complement of the id by stored value; 0, the complement of -1, where there is none.

    For colours this has 2^24 entries, of which only the pages that hold a class are ever written: memory that stays
    zero costs nothing.
    """
    table = np.zeros(size, dtype=np.int32)
    for stored, index in meaning:
        table[stored] = ~index
    return table


def _key(color: Color) -> int:
    return color[0] << 16 | color[1] << 8 | color[2]


def _ranges(values: list[int]) -> str:
    """0..18, 255 for [0, 1, ..., 18, 255]."""
    parts: list[list[int]] = []
    for value in values:
        if parts and value == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], value]
        else:
            parts.append([value])
    return ", ".join("..".join(map(str, part)) for part in parts)
