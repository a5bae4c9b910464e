"""Explain masks whose pixels are colours instead of class ids."""

# N colours

from __future__ import annotations

import numpy as np
from PIL import Image

from service.classes.class_list import ClassList, Color

MAX_SHOWN = 4
MAX_PIXELS = 1_000_000
OR_REGIONS = "or send each class by its name as COCO RLE or polygons, in JSON (see /docs)"


def explain_colors(image: Image.Image, classes: ClassList) -> str:
    """Say what the pixels of a colour mask are, and the remedy."""
    if not {"R", "G", "B"} <= set(image.getbands()):
        return f"The mask is {image.mode} and must have one channel: save it as grey, without transparency."
    found = _colors(image)
    names = {each.color: each.name for each in classes.classes}
    if all(red == green == blue for red, green, blue in found):
        return (
            f"The mask is {image.mode} with equal channels, and must have one: save one channel as grey (mode L), its "
            "values as they are."
        )
    unknown = [color for color in found if color not in names]
    known = [f"{_hex(color)} {names[color]}" for color in found if color in names]
    if not unknown:
        what = f"the colours of the class list ({', '.join(known[:MAX_SHOWN])})"
    elif known:
        what = f"{len(unknown)} colours that no class has, such as {_hex(unknown[0])}, beside {known[0]}"
    else:
        what = f"{len(unknown)} colours that no class has, such as {_hex(unknown[0])}"
    return (
        f"The mask is {image.mode}, and a pixel must be a class id, not a colour. It has {what}: replace each colour "
        f"by the id of its class (GET /v1/classes) in a grey or indexed PNG, {OR_REGIONS}."
    )


def permuted_colors(image: Image.Image, ids: list[int], classes: ClassList) -> str | None:
    """Say which class an indexed mask paints in the colour of another; None unless all its colours are of classes.

    `ids` are the indices that occur. Such masks come from tools that convert colours to a palette of their own.
    """
    colors = image.getpalette("RGB") or []
    by_color = {each.color: position for position, each in enumerate(classes.classes)}
    painted = {
        i: by_color.get((colors[3 * i], colors[3 * i + 1], colors[3 * i + 2])) for i in ids if 3 * i + 2 < len(colors)
    }
    others = [(i, other) for i, other in painted.items() if other is not None and other != i]
    if len(painted) < 2 or len(painted) < len(ids) or None in painted.values() or not others:
        return None
    index, other = others[0]
    return (
        f"Its palette paints the id {index}, {classes.names[index]!r}, in the colour of {classes.names[other]!r}, "
        f"whose id is {other}: ids count, and colours do not. If the colours are right, replace the ids."
    )


def _colors(image: Image.Image) -> list[Color]:
    """The colours of an image, of a large one of some of its pixels, the most frequent first."""
    step = max(1, round((image.width * image.height / MAX_PIXELS) ** 0.5))
    pixels = np.asarray(image.convert("RGB"))[::step, ::step].astype(np.uint32)
    packed = pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]
    found_N, counts_N = np.unique(packed, return_counts=True)
    order_N = np.argsort(-counts_N, kind="stable")
    return [(each >> 16, each >> 8 & 255, each & 255) for each in found_N[order_N].tolist()]


def _hex(color: Color) -> str:
    return "#" + bytes(color).hex()
