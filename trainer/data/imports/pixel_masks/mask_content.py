"""Find out what mask files store: numbers or colours, and which."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from trainer.data.decode import DAMAGED, ImageError, Source, decode_colors, decode_values
from trainer.data.mask_encoding import Color

ONE_CHANNEL = {"L", "P", "1", "I", "I;16", "I;16B"}


@dataclass(frozen=True, slots=True)
class MaskContent:
    """What one mask stores.

    Attributes:
        name: path within the source.
        numbers: the different values of one channel, or the grey values of an image with equal channels.
        colors: the different colours of an image with several channels.
        palette: colour by number, of an indexed image.
        lossy: whether the file is a JPEG.
        problem: why it cannot be read; "" if it can.
    """

    name: str
    numbers: frozenset[int] = frozenset()
    colors: frozenset[Color] = frozenset()
    palette: dict[int, Color] = field(default_factory=dict)
    lossy: bool = False
    problem: str = ""

    @property
    def is_grey(self) -> bool:
        """Whether it has one channel, or equal ones."""
        return all(red == green == blue for red, green, blue in self.colors)


def read_content(file: Callable[[], Source], name: str) -> MaskContent:
    """Read what a mask stores; `file` gives the file, or its bytes."""
    try:
        mode, lossy, palette = _header(file, name)
        if mode not in ONE_CHANNEL:
            return _of_colors(file(), name, lossy=lossy)
        numbers = frozenset(np.unique(decode_values(file(), Path(name))).tolist())
    except ImageError as error:
        return MaskContent(name, problem=str(error))
    except DAMAGED as error:
        return MaskContent(name, problem=f"{name}: cannot be decoded ({error}); export it again")
    colors = {number: _entry(palette, number) for number in numbers if 3 * number + 2 < len(palette)}
    return MaskContent(name, numbers, palette=colors, lossy=lossy)


def _header(file: Callable[[], Source], name: str) -> tuple[str, bool, Sequence[int]]:
    """Pillow's mode, whether it is a JPEG, and the palette."""
    try:
        with Image.open(file()) as image:
            palette = image.getpalette() if image.mode == "P" else None
            return image.mode, image.format == "JPEG", palette or ()
    except DAMAGED:
        # Its message says why Pillow opens no file.
        decode_values(file(), Path(name))
        raise


def _of_colors(file: Source, name: str, *, lossy: bool) -> MaskContent:
    color_HWC = decode_colors(file, Path(name)).astype(np.int32)
    packed_HW = color_HWC[..., 0] << 16 | color_HWC[..., 1] << 8 | color_HWC[..., 2]
    colors = frozenset((packed >> 16, packed >> 8 & 255, packed & 255) for packed in np.unique(packed_HW).tolist())
    content = MaskContent(name, colors=colors, lossy=lossy)
    return MaskContent(name, frozenset(each[0] for each in colors), colors, lossy=lossy) if content.is_grey else content


def _entry(palette: Sequence[int], number: int) -> Color:
    return palette[3 * number], palette[3 * number + 1], palette[3 * number + 2]
