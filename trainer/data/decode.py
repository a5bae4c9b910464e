"""Files to arrays: photographs to RGB, masks to class ids.

The rules are the ones of the service's decoder, so that a model is trained on what it will be asked about: EXIF
orientation applied, 16-bit scaled by 1/256, transparency laid on black, every other mode converted to RGB.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError


class ImageError(ValueError):
    """An image or a mask that cannot be used; the message names the file and says why."""


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """Read a photograph as HWC uint8 RGB, 0..255. Raises ImageError when it cannot be decoded."""
    try:
        with Image.open(path) as file:
            return np.asarray(to_rgb(ImageOps.exif_transpose(file)))
    except FileNotFoundError as error:
        raise ImageError(f"{path}: there is no such image") from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise ImageError(
            f"{path}: cannot be decoded ({error}); replace the file or take its name out of the splits"
        ) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode to RGB by the rules at the head of this module."""
    if image.mode.startswith("I;16") or image.mode == "I":
        grey_HW = (np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8)
        return Image.fromarray(grey_HW).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba).convert("RGB")
    return image.convert("RGB")


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
            mask_HW = np.asarray(file).astype(np.int64)
    except FileNotFoundError as error:
        raise ImageError(f"{path}: the mask is missing; add it or take its name out of the labelled split") from error
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ImageError(f"{path}: cannot be decoded ({error})") from error
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
