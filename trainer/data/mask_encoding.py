"""Convert the values that a mask file stores (ids, other numbers, or colours) to class ids.

A value that is neither a class nor ignored is an error: it must not train as a wrong class.
"""

# H W pixels, C channels

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.counted import counted
from trainer.data.decode import ImageError, Source, decode_colors, decode_values

MAX_NAMED = 8
"""Unknown values that a message names."""

Color = tuple[int, int, int]
Stored = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True)
class MaskEncoding:
    """Meaning of a mask's stored values.

    `id_of_value` has pairs (stored value, class id or ignore_index); a colour is r * 65536 + g * 256 + b.
    `reduces_zero`: classes.toml says so instead of listing them.
    """

    id_of_value: tuple[tuple[int, int], ...]
    ignore_index: int
    colors: bool = False
    reduces_zero: bool = False

    @classmethod
    def from_values(cls, id_of_value: Mapping[int, int], ignored: Iterable[int], ignore_index: int) -> "MaskEncoding":
        """Encoding of masks of numbers: class id by value, and values to ignore."""
        return cls(tuple((dict.fromkeys(ignored, ignore_index) | dict(id_of_value)).items()), ignore_index)

    @classmethod
    def from_colors(
        cls, id_of_color: Mapping[Color, int], ignored: Iterable[Color], ignore_index: int
    ) -> "MaskEncoding":
        """Encoding of masks of colours: class id by (red, green, blue), and colours to ignore."""
        both = dict.fromkeys(ignored, ignore_index) | dict(id_of_color)
        packed = tuple((red << 16 | green << 8 | blue, index) for (red, green, blue), index in both.items())
        return cls(packed, ignore_index, colors=True)

    @classmethod
    def identity(cls, classes: int, ignore_index: int) -> "MaskEncoding":
        """Encoding of masks that store the ids 0..classes-1 and `ignore_index`."""
        return cls.from_values({index: index for index in range(classes)}, (ignore_index,), ignore_index)

    def decode(self, source: Source, name: Path, size: tuple[int, int]) -> npt.NDArray[np.int64]:
        """Decode a mask, HW int64: class ids or ignore_index.

        Raises ImageError, which calls it `name`, if the mask is missing, damaged, of another type, not of `size`
        (height, width), or stores an unknown value.
        """
        return self.decode_values(self.stored_values(source, name), name, size)

    def decode_values(self, stored_HW: Stored, name: Path, size: tuple[int, int]) -> npt.NDArray[np.int64]:
        """Decode the stored values of a mask; as `decode`."""
        if stored_HW.shape != size:
            raise ImageError(f"{name}: {_describe_sizes(stored_HW.shape, size)}")
        mask_HW = self.to_ids(stored_HW)
        if (unknown_HW := mask_HW < 0).any():
            raise ImageError(f"{name}: {self._describe_unknown(stored_HW[unknown_HW])}")
        return mask_HW

    def stored_values(self, source: Source, name: Path) -> Stored:
        """Stored values of a mask, HW. Raises ImageError."""
        if not self.colors:
            return decode_values(source, name)
        color_HWC = decode_colors(source, name).astype(np.int32)
        return color_HWC[..., 0] << 16 | color_HWC[..., 1] << 8 | color_HWC[..., 2]

    def to_ids(self, stored_HW: Stored) -> npt.NDArray[np.int64]:
        """Class ids of stored values, HW int64; -1 = unknown value."""
        table = _table(self.id_of_value, 1 << 24 if self.colors else 1 << 16)
        # mode="clip" avoids a bounds check per index.
        mask_HW = table.take(stored_HW, mode="clip")
        if stored_HW.dtype.itemsize > 2:
            mask_HW[(stored_HW < 0) | (stored_HW >= len(table))] = 0
        return np.invert(mask_HW, dtype=np.int64)

    def stored_as(self, index: int) -> str:
        """The stored values or colours of a class id or ignore_index, for people: "7, 8" or "[128, 64, 0]"."""
        stored = sorted(value for value, each in self.id_of_value if each == index)
        return ", ".join(map(self._format, stored)) if self.colors else _ranges(stored)

    def _describe_unknown(self, stored: Stored) -> str:
        values, counts = np.unique(stored, return_counts=True)
        order = np.argsort(-counts)[:MAX_NAMED]
        named = ", ".join(f"{self._format(int(values[i]))} ({counted(counts[i], 'pixel', 'pixels')})" for i in order)
        others = len(values) - MAX_NAMED
        more = f" and {counted(others, 'more value', 'more values')}" if others > 0 else ""
        return (
            f"contains {named}{more}, neither a class nor ignored; known are {self._known_values()}; "
            "add the class to classes.toml or repaint the mask"
        )

    def _format(self, stored: int) -> str:
        """A stored value for people: 7, or the colour [128, 64, 0]."""
        return str([stored >> 16, stored >> 8 & 255, stored & 255]) if self.colors else str(stored)

    def _known_values(self) -> str:
        known = sorted(stored for stored, _ in self.id_of_value)
        if not self.colors:
            return _ranges(known)
        return ", ".join(map(self._format, known[:MAX_NAMED])) + (" and others" if len(known) > MAX_NAMED else "")


def _describe_sizes(mask: tuple[int, ...], image: tuple[int, int]) -> str:
    found, wanted = ("x".join(map(str, shape[::-1])) for shape in (mask, image))
    if mask == image[::-1]:
        return (
            f"the mask has {found} pixels and its upright image {wanted} (width x height); draw the mask on the image "
            "as viewers show it: the EXIF orientation of an image is applied, and that of a mask if it has one"
        )
    return f"the mask has {found} pixels, its image {wanted} (width x height); export it at that size"


@lru_cache(maxsize=8)
def _table(id_of_value: tuple[tuple[int, int], ...], size: int) -> npt.NDArray[np.int32]:
    """Bitwise complement of the id, by stored value; 0 = unknown, so that the 2^24 colours cost no memory."""
    table = np.zeros(size, dtype=np.int32)
    for stored, index in id_of_value:
        table[stored] = ~index
    return table


def _ranges(values: list[int]) -> str:
    """Format [0, 1, ..., 18, 255] as "0..18, 255"."""
    parts: list[list[int]] = []
    for value in values:
        if parts and value == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], value]
        else:
            parts.append([value])
    return ", ".join("..".join(map(str, part)) for part in parts)
