"""Find out why Pillow does not open a file: `Image.open` drops the reason."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from service.segmentation.formats import tiff_tags

# Bytes by which Pillow's plugins recognise their files.
PREFIX_BYTES = 16
# Parts of the messages of Pillow's plugins about sound files that they cannot decode.
UNSUPPORTED = ("cannot handle", "unsupported", "not supported", "not yet supported")
UNSUPPORTED_TIFF = ("unknown pixel mode", "samples per pixel")
CONVERT = "save it as grey or RGB with 8 bits per channel"
CONVERT_NUMBERS = (
    "save it as 32-bit floats, which need data.range in the recipe, or as grey or RGB with 8 bits per channel"
)


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a file is not opened: it has none of the formats, it is sound but of another kind, or it is damaged."""

    cause: Literal["format", "kind", "damage"]
    text: str
    remedy: str = ""
    """Of a sound file of another kind."""


def find_fault(data: bytes, formats: Iterable[str]) -> Fault:
    """Find the fault of a file which `Image.open` did not open as one of the formats (Pillow's names)."""
    names = list(formats)
    for name in names:
        factory, accepts = Image.OPEN[name]
        if accepts is None or accepts(data[:PREFIX_BYTES]) is not True:
            continue
        try:
            factory(io.BytesIO(data), "")
        except Exception as error:
            return _fault(name, data, error)
    return Fault("format", f"not {', '.join(names[:-1])} or {names[-1]}")


def _fault(name: str, data: bytes, error: Exception) -> Fault:
    if name == "TIFF" and (kind := _unsupported_tiff(data, error)):
        # Of one grey band, only the numbers can be wrong.
        is_numbers = kind.startswith("1 band of") and kind.endswith(", marked as grey") and "complex" not in kind
        return Fault("kind", f"a TIFF with {kind}", CONVERT_NUMBERS if is_numbers else CONVERT)
    if any(part in str(error).lower() for part in UNSUPPORTED):
        return Fault("kind", f"a {name} that Pillow does not decode: {error}", CONVERT)
    return Fault("damage", f"{name} is damaged: {error}")


def _unsupported_tiff(data: bytes, error: Exception) -> str | None:
    """Describe a TIFF that is sound, but not supported; None for a damaged one."""
    try:
        kind = tiff_tags.describe(data)
    except Exception:  # the tags are damaged, in one of many ways
        return None
    # Of an unknown compression, the message is the number.
    reason = str(error)
    is_sound = data.startswith(tiff_tags.BIG_ENDIAN_BIGTIFF) or reason.isdigit()
    return kind if is_sound or any(part in reason for part in UNSUPPORTED_TIFF) else None
