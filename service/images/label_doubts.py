"""Recognise labels that are probably not what their author meant: they would train silently wrong."""

from __future__ import annotations

import io
from collections.abc import Collection

import numpy as np
from PIL import Image

from service.classes.class_list import ClassList, Ids
from service.errors import MaskInvalid
from service.images.mask_colors import permuted_colors
from service.segmentation.formats.png_chunks import SIGNATURE, without_metadata

# Offsets in a PNG: signature 8, length and name of IHDR 8, width 4, height 4.
BIT_DEPTH_OFFSET, COLOR_TYPE_OFFSET = 24, 25
BLACK_AND_WHITE = bytes((1, 0))
WHITE = 255


def check_not_binary(data: bytes, ids: Ids, classes: ClassList) -> None:
    """Raise MaskInvalid for a mask that looks black and white: many tools draw an object so, as 0/255 or with one bit.

    `data` is the uploaded PNG, and `ids` what it holds.
    """
    found = np.unique(ids).tolist()
    if found == [0, classes.ignore_index]:
        raise MaskInvalid(
            f"The mask holds 0 and {found[1]} only, and {found[1]} means no label: is it a class? Then replace "
            f"{found[1]} by the id of the class; if not, send the mask again with ?partial=true."
        )
    one_bit = data[BIT_DEPTH_OFFSET : COLOR_TYPE_OFFSET + 1] == BLACK_AND_WHITE
    if found == [0, WHITE] or (one_bit and found == [0, 1] and len(classes) > 2):
        raise MaskInvalid(
            f"The mask is black and white, which would mean {_names(found, classes)}: replace white by the id of the "
            "class that it shows (GET /v1/classes), and black, too, if it means another than the first class. If they "
            "are right, send the mask again with ?partial=true."
        )


def grey_levels(unknown: Collection[int], found: Collection[int]) -> str:
    """Explain ids that are no classes, if they look like the grey levels of a drawing; empty if not."""
    if 0 in found and WHITE in found and len(unknown) > 8:
        return " It looks like a drawing of one object with soft edges: set a threshold, and write ids of classes."
    return ""


def find_doubt(data: bytes, ids: Collection[int], classes: ClassList, *, unlabelled: int) -> str | None:
    """Say what is odd about an uploaded PNG that may be right all the same; None: nothing.

    `ids` are the classes that occur, and `unlabelled` the number of pixels without a label.
    """
    present = sorted(ids)
    if not data.startswith(SIGNATURE):
        return None
    if not present:
        return "No pixel has a label."
    with Image.open(io.BytesIO(without_metadata(data)), formats=["PNG"]) as image:
        permuted = permuted_colors(image, present, classes) if image.mode == "P" else None
    if permuted is not None or unlabelled or len(classes) < 3:
        return permuted
    if len(present) == 1:
        return f"Every pixel is {classes.names[present[0]]!r}: if it shows others, its values are no class ids."
    if present == [0, 1]:
        return (
            f"It holds 0 and 1 only, {_names(present, classes)}: if 1 means an object of another class, send the mask "
            "again with its id."
        )
    return None


def _names(ids: Collection[int], classes: ClassList) -> str:
    return " and ".join(repr(classes.names[each]) for each in ids)
