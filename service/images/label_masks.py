"""Read and write label masks: PNGs with one channel of class ids."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from service.classes.class_list import ClassHistory, ClassList, Ids
from service.errors import MaskInvalid
from service.images.label_doubts import BIT_DEPTH_OFFSET, check_not_binary, grey_levels
from service.images.mask_colors import explain_colors
from service.images.regions.draw_regions import draw_regions
from service.images.regions.region_label import is_region_label, read_region_label
from service.segmentation.decode import TRANSPOSITIONS, orientation_of
from service.segmentation.formats.png_chunks import SIGNATURE, without_metadata
from service.upload_kinds import recognise


def read_label(data: bytes, *, width: int, height: int, classes: ClassList, partial: bool = False) -> Ids:
    """Read an uploaded label: JSON with regions (`RegionLabel`), or a mask for `read_mask`. Raises MaskInvalid.

    `partial`: do not refuse a mask that looks black and white.
    """
    if is_region_label(data):
        return draw_regions(read_region_label(data), (width, height), classes)
    ids = read_mask(data, width=width, height=height, classes=classes)
    if not partial:
        check_not_binary(data, ids, classes)
    return ids


def read_mask(data: bytes, *, width: int, height: int, classes: ClassList) -> Ids:
    """Read an uploaded label mask: a PNG with one channel, palette or grey with 1 to 16 bits.

    Palette indices and grey values are used as they are in the file: no colours are looked up, no grey values scaled.
    The mask's own EXIF orientation is applied.
    `width` and `height` are pixels of the upright image; ids are those of `classes`, or its `ignore_index`.

    Returns uint8 [H, W], or uint16 if an id exceeds 255. Raises MaskInvalid.
    """
    if not data.startswith(SIGNATURE):
        kind = recognise(data)
        raise MaskInvalid(
            f"The upload {kind}."
            if kind
            else "The mask is not a PNG: save it as PNG with the same class ids, which JPEG would change."
        )
    ids = _indices(data, (width, height), classes)
    found = np.unique(ids)
    unknown = [int(i) for i in found if i >= len(classes) and i != classes.ignore_index]
    if unknown:
        raise MaskInvalid(
            f"The mask holds the ids {unknown[:8]} and the classes are 0..{len(classes) - 1} (or "
            f"{classes.ignore_index}, ignored): renumber the mask, or add classes (PUT /v1/classes)."
            f"{grey_levels(unknown, set(found.tolist()))}"
        )
    return ids if int(found.max()) > 255 else ids.astype(np.uint8)


def encode_mask(ids: Ids) -> bytes:
    """Encode class ids [H, W] as a grey PNG with 8 bits (16 if needed)."""
    sink = io.BytesIO()
    Image.fromarray(ids).save(sink, format="PNG", compress_level=1)
    return sink.getvalue()


def decode_mask(stored: bytes) -> Ids:
    """Decode a mask of `encode_mask`, uint8 or uint16 [H, W]."""
    with Image.open(io.BytesIO(stored), formats=["PNG"]) as image:
        if image.mode.startswith("I;16"):
            return np.asarray(image, np.uint16)
        return np.asarray(image, np.uint8)


def translate_mask(stored: bytes, history: ClassHistory, version: int | None, target: ClassList) -> bytes:
    """Translate a stored mask of a version of the class list to the ids of a list; the same bytes if these are equal.

    `version` None: of a former version of the service, whose labels have the first list.
    """
    source = 1 if version is None else version
    if history.keeps_ids(source, target):
        return stored
    return encode_mask(history.translate(decode_mask(stored), source, target))


def _indices(data: bytes, size: tuple[int, int], classes: ClassList) -> Ids:
    try:
        image = _open_upright(data, size, classes)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise MaskInvalid(f"The mask is a damaged PNG ({error}): save it again.") from None
    if image.mode.startswith("I;16"):
        return np.asarray(image, dtype=np.uint16)
    ids = np.asarray(image, dtype=np.uint8)
    if image.mode == "L" and data[BIT_DEPTH_OFFSET] < 8:
        # Pillow scales 2- and 4-bit grey to 0..255; undo it: the 4-bit value 1 means class 1, not grey 17.
        ids = ids // np.uint8(255 // (2 ** data[BIT_DEPTH_OFFSET] - 1))
    return ids


def _open_upright(data: bytes, size: tuple[int, int], classes: ClassList) -> Image.Image:
    used = without_metadata(data)
    image: Image.Image = Image.open(io.BytesIO(used), formats=["PNG"])
    # Before anything is decoded: the mask may be turned.
    if image.size != size and image.size != size[::-1]:
        raise _wrong_size(image, size)
    if image.mode not in ("1", "L", "P") and not image.mode.startswith("I;16"):
        raise MaskInvalid(explain_colors(image, classes))
    turn = TRANSPOSITIONS.get(orientation_of(image, used))
    upright = image if turn is None else image.transpose(turn)
    if upright.size != size:
        raise _wrong_size(upright, size)
    upright.load()
    return upright


def _wrong_size(mask: Image.Image, size: tuple[int, int]) -> MaskInvalid:
    return MaskInvalid(
        f"The mask has {mask.size[0]}x{mask.size[1]} pixels and its upright image {size[0]}x{size[1]}: draw the mask "
        "on the image as viewers show it. An image's EXIF orientation is applied, and a mask's if it has one."
    )
