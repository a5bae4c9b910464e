"""Labels that are mask files: one of several values or colours, or one black-and-white mask for each class."""

# H W pixels

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.data.decode import ImageError, Source, decode_colors, decode_values, stored_orientation
from trainer.data.imports.source.annotated import REST, Ids, Size
from trainer.data.imports.source.loss_report import Losses
from trainer.data.mask_encoding import MaskEncoding, Stored

TURN: dict[int, Callable[[npt.NDArray[Any]], npt.NDArray[Any]]] = {
    5: np.transpose,
    6: lambda mask_HW: np.rot90(mask_HW, -1),
    7: lambda mask_HW: np.rot90(mask_HW, 2).T,
    8: np.rot90,
}
"""What makes a mask of the stored picture upright, by EXIF orientation that swaps width and height."""
TURNED = "a mask has the size of the stored, not of the upright image; it is turned by the image's EXIF orientation"
TAKEN_FOR_UPRIGHT = "an image has an EXIF orientation, and its mask fits both ways; it is taken for upright"
GREY = "a black-and-white mask has grey values; those of 128 and more are taken for white"
OVERLAP = "masks of different classes overlap; the class that is later in the list wins"
WHITE = 128


@dataclass(frozen=True, slots=True)
class MaskFile:
    """A mask file.

    Attributes:
        file: on disk, or its bytes.
        name: what messages call it: the path within the source.
        image: its image, for the EXIF orientation.
    """

    file: Path | Callable[[], bytes]
    name: str
    image: Path | Callable[[], bytes]

    def source(self) -> Source:
        """What the decoder reads."""
        return _source(self.file)

    def upright(self, stored_HW: npt.NDArray[Any], size: Size, losses: Losses) -> npt.NDArray[Any]:
        """The values [H, W], turned if the mask was drawn on the picture as it is stored."""
        orientation = stored_orientation(_source(self.image), Path(self.name))
        if orientation in TURN and stored_HW.shape == size[::-1] and stored_HW.shape != size:
            losses.add("orientation", TURNED, self.name)
            return TURN[orientation](stored_HW)
        if orientation != 1 and stored_HW.shape == size and (orientation not in TURN or size[0] == size[1]):
            losses.add("orientation", TAKEN_FOR_UPRIGHT, self.name, remedy="look at overview.jpg")
        return stored_HW


@dataclass(frozen=True, slots=True)
class PixelMask:
    """A label of one mask file; the ids of the encoding are positions in the source's classes, REST or VOID."""

    mask: MaskFile
    encoding: MaskEncoding

    def draw(self, size: Size, losses: Losses) -> Ids:
        """See Label."""
        name = Path(self.mask.name)
        stored_HW: Stored = self.encoding.stored_values(self.mask.source(), name)
        return self.encoding.decode_values(self.mask.upright(stored_HW, size, losses), name, size).astype(np.uint16)


@dataclass(frozen=True, slots=True)
class BinaryMasks:
    """A label of black-and-white masks.

    Attributes:
        masks: a mask and the class of its white pixels, the lowest first.
        rest: id of pixels that are white in none.
    """

    masks: Sequence[tuple[MaskFile, int]]
    rest: int = REST

    def draw(self, size: Size, losses: Losses) -> Ids:
        """See Label."""
        ids_HW = np.full(size, self.rest, dtype=np.uint16)
        covered_HW = np.zeros(size, dtype=np.bool_)
        for mask, class_id in self.masks:
            white_HW = self._white(mask, size, losses)
            if pixels := int((covered_HW & white_HW).sum()):
                losses.add("overlap", OVERLAP, f"{mask.name} ({pixels} pixels)")
            ids_HW[white_HW] = class_id
            covered_HW |= white_HW
        return ids_HW

    def _white(self, mask: MaskFile, size: Size, losses: Losses) -> npt.NDArray[np.bool_]:
        stored_HW = mask.upright(binary_values(mask.source(), Path(mask.name)), size, losses)
        if stored_HW.shape != size:
            found, wanted = (f"{shape[1]}x{shape[0]}" for shape in (stored_HW.shape, size))
            raise ImageError(f"{mask.name}: the mask has {found} pixels, its image {wanted} (width x height)")
        largest = int(stored_HW.max(initial=0))
        if largest > 1 and ((stored_HW > 0) & (stored_HW < largest)).any():
            losses.add("grey mask", GREY, mask.name)
        white_HW: npt.NDArray[np.bool_] = stored_HW >= (WHITE if largest > 1 else 1)
        return white_HW


def binary_values(source: Source, name: Path) -> npt.NDArray[Any]:
    """Values of a black-and-white mask, [H, W]; of one with colours, the brightest channel. Raises ImageError."""
    try:
        return decode_values(source, name)
    except ImageError:
        if isinstance(source, BytesIO):
            source.seek(0)
        brightest_HW: npt.NDArray[Any] = decode_colors(source, name).max(axis=2)
        return brightest_HW


def _source(file: Path | Callable[[], bytes]) -> Source:
    return file if isinstance(file, Path) else BytesIO(file())
