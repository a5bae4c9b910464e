"""Files to arrays: photographs to RGB, masks to class ids.

The rules are those of the service's decoder, and tests/contract pins that they stay equal, so that a model is trained
on what it will
be asked about: EXIF orientation applied (a broken EXIF is ignored), the upper 8 of 16 bits, transparency laid on white,
32-bit integers and floats refused, every other mode converted to RGB.
"""

import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

DAMAGED = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    struct.error,
    Image.DecompressionBombError,
)
"""What Pillow raises on files that are damaged, by format."""


class ImageError(ValueError):
    """An image or a mask that cannot be used; the message names the file and says why."""


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """Read a photograph as HWC uint8 RGB, 0..255. Raises ImageError when it cannot be decoded."""
    try:
        with Image.open(path) as file:
            return np.asarray(to_rgb(_upright(file)))
    except FileNotFoundError as error:
        raise ImageError(f"{path}: there is no such image") from error
    except DAMAGED as error:
        remedy = "replace the file or take its name out of the splits"
        raise ImageError(f"{path}: cannot be decoded ({error}); {remedy}") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode to RGB by the rules above. Raises ValueError for a mode without a known range."""
    if image.mode in {"I", "F"}:
        raise ValueError(f"pixels of kind {image.mode!r} have no known range; save 8 or 16 bits a channel")
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    try:
        return ImageOps.exif_transpose(image)
    except DAMAGED:
        return image


def read_mask(path: Path, size: tuple[int, int], classes: int, ignore_index: int) -> npt.NDArray[np.int64]:
    """Read a mask as HW int64 class ids (0..classes-1, or `ignore_index`).

    Args:
        path: a PNG with one channel; palette images give their indices.
        size: the (height, width) that the mask must have: its photograph's.
        classes: how many classes there are.
        ignore_index: the value of unlabelled pixels.

    Raises:
        ImageError: no such file, not one channel, another size than its photograph, or an id outside the list.
    """
    try:
        with Image.open(path) as file:
            if file.mode not in {"L", "P", "1", "I;16", "I"}:
                raise ImageError(
                    f"{path}: a mask has one channel of class ids, this one is {file.mode}; save an indexed or grey PNG"
                )
            mask_HW = _ids(file)
    except FileNotFoundError as error:
        raise ImageError(f"{path}: the mask is missing; add it or take its name out of the labelled split") from error
    except DAMAGED as error:
        raise ImageError(f"{path}: cannot be decoded ({error}); paint the mask anew") from error
    if mask_HW.shape != size:
        found, wanted = ("x".join(map(str, shape[::-1])) for shape in (mask_HW.shape, size))
        raise ImageError(f"{path}: the mask is {found} pixels, its photograph {wanted} (width x height)")
    outside = mask_HW[(mask_HW >= classes) & (mask_HW != ignore_index)]
    if outside.size:
        raise ImageError(
            f"{path}: {outside.size} pixels hold {int(outside.flat[0])}, no class id (0..{classes - 1}) and not "
            f"{ignore_index}; list the class in classes.toml or repaint the mask"
        )
    return mask_HW


def _ids(image: Image.Image) -> npt.NDArray[np.int64]:
    # Pillow stretches greys of 2 and 4 bits over 0..255; in a mask they are ids.
    tiles = getattr(image, "tile", [])
    stretch = {"L;2": 85, "L;4": 17}.get(str(tiles[0].args), 1) if tiles else 1
    return np.asarray(image).astype(np.int64) // stretch
