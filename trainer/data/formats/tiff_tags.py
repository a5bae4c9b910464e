"""Tags of a TIFF: which page is the picture, whether its fourth band is transparency, and what Pillow cannot decode."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Mapping
from typing import IO, Any

from PIL import Image, ImageFile
from PIL.TiffImagePlugin import COMPRESSION_INFO, ImageFileDirectory_v2

SUBFILE, OLD_SUBFILE = 254, 255
# Bits of the tag SUBFILE; a value of the older tag.
REDUCED, MASK, OLD_REDUCED = 1, 4, 2
BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, SUB_IFDS, EXTRA_SAMPLES, SAMPLE_FORMAT = 258, 259, 262, 277, 330, 338, 339
TRANSPARENCY_MASK = 4
PLANES, SEPARATE, WHITE_IS_ZERO, GREY = 284, 2, 0, (0, 1)
TILE_WIDTH, TILE_LENGTH = 322, 323
# Tags of GeoTIFF (scale, tie points, transformation, keys) and of GDAL (metadata, value of missing pixels).
GEOGRAPHIC = {33550, 33922, 34264, 34735, 42112, 42113}
PREMULTIPLIED = (1,)
NUMBERS = {1: "unsigned integers", 2: "signed integers", 3: "floats", 5: "complex integers", 6: "complex floats"}
COLORS = {0: "grey", 1: "grey", 2: "RGB", 3: "a palette", 5: "CMYK", 6: "YCbCr", 8: "Lab"}
COMPRESSIONS = {34712: "JPEG 2000", 34887: "LERC", 50001: "WebP", 50002: "JPEG XL"}
# Pillow reads only the first of these two.
BIGTIFF, BIG_ENDIAN_BIGTIFF = b"II+\0", b"MM\0+"
# A picture has at most about 30 overviews, each with a mask; thumbnails may precede it.
MAX_PAGES, MAX_PAGES_BEFORE = 100, 4
# Tags are sorted by their number, and those that tell pages apart are among the first.
FIRST_TAGS = 16
# Types of these tags, as `struct` calls them.
NUMBER_TYPES = {3: "H", 4: "I"}


def select_page(image: ImageFile.ImageFile) -> int:
    """Select the first page that is no overview, thumbnail or mask of another, and count these pages up to 2.

    Returns:
        0 if every page is marked as one of these; the first is selected then.
    """
    found: list[int] = []
    for page, tags in enumerate(_directories(image.fp)):
        if not _is_secondary(tags):
            found.append(page)
        if len(found) > 1 or page == MAX_PAGES or (page == MAX_PAGES_BEFORE and not found):
            break
    image.seek(found[0] if found else 0)
    if _in_raw_planes(image) and _is_grey_16(image):
        # Of one band, as GDAL writes it with INTERLEAVE=BAND. Pillow takes the first letter of the mode for the band's.
        tiles: list[Any] = image.tile
        image.tile = [tile._replace(args=(image.mode, *tile.args[1:])) for tile in tiles]
    return len(found)


def unreadable_kind(image: Image.Image) -> str | None:
    """Describe a TIFF that Pillow opens, but does not decode, or decodes to wrong numbers; the remedy follows."""
    tags = _tags(image)
    (bits, numbers), compression = bits_and_numbers(image), tags.get(COMPRESSION, 1)
    in_planes, bands = _in_raw_planes(image), tags.get(SAMPLES, 1)
    if compression in COMPRESSIONS:
        return f"compressed with {COMPRESSIONS[compression]}: use deflate or LZW"
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO and (in_planes or bits > 8):
        return f"of {bits}-bit {numbers} in which zero is white: invert it, so that zero is black"
    if tags.get(PLANES) == SEPARATE and tags.get(PHOTOMETRIC) in GREY and bands > 1:
        return f"of {bands} bands in separate planes, marked as grey: save one or three of them"
    if in_planes and bits not in (1, 8, 32) and not _is_grey_16(image):
        return f"of {bits}-bit {numbers} in separate planes: save it with interleaved bands, or compress it"
    is_big_endian = getattr(tags, "prefix", b"") == b"MM"
    if is_big_endian and image.mode in ("I", "F") and (in_planes or compression != 1):
        return f"of {bits}-bit {numbers} in big-endian order: save it in little-endian order"
    return None


def _in_raw_planes(image: Image.Image) -> bool:
    tags = _tags(image)
    return tags.get(COMPRESSION, 1) == 1 and tags.get(PLANES) == SEPARATE


def _is_grey_16(image: Image.Image) -> bool:
    return image.mode.startswith("I;16") and bits_and_numbers(image)[0] == 16


def has_sub_pages(image: Image.Image) -> bool:
    """Whether the page refers to others that Pillow does not read: in raw files of cameras, one is the photograph."""
    return SUB_IFDS in _tags(image)


def fourth_band_is_alpha(image: Image.Image) -> bool:
    """Whether the fourth band of an image is transparency.

    GDAL marks the fourth band of any GeoTIFF as transparency, so there the mark means nothing: it is often infrared.
    """
    tags = _tags(image)
    return GEOGRAPHIC.isdisjoint(tags) or tags.get(EXTRA_SAMPLES) == PREMULTIPLIED


def tile_pixels(image: Image.Image) -> int:
    """Pixels of one tile: a tile is decoded whole, however little of it the picture covers."""
    tags = _tags(image)
    return int(tags.get(TILE_WIDTH, 0)) * int(tags.get(TILE_LENGTH, 0))


def bits_and_numbers(image: Image.Image) -> tuple[int, str]:
    """Bits per sample, and the kind of numbers of a TIFF's page; 8 and unsigned for other files."""
    tags = _tags(image)
    return int(tags.get(BITS, (8,))[0]), NUMBERS.get(tags.get(SAMPLE_FORMAT, (1,))[0], "values")


def describe(data: bytes) -> str:
    """Describe the first page of a TIFF, such as "5 bands of 8-bit unsigned integers, marked as grey".

    Raises errors of several types if it is damaged.
    """
    if data.startswith(BIG_ENDIAN_BIGTIFF):
        return "64-bit offsets in big-endian order"
    tags = ImageFileDirectory_v2(data[: 16 if data.startswith(BIGTIFF) else 8])
    file = io.BytesIO(data)
    file.seek(tags.next)
    tags.load(file)
    bands, compression = tags.get(SAMPLES, 1), tags.get(COMPRESSION, 1)
    numbers = NUMBERS.get(tags.get(SAMPLE_FORMAT, (1,))[0], "values")
    text = f"{bands} band{'s' if bands > 1 else ''} of {tags.get(BITS, (1,))[0]}-bit {numbers}"
    text += f", marked as {COLORS.get(tags.get(PHOTOMETRIC, 0), 'another colour space')}"
    if compression in COMPRESSION_INFO and compression not in COMPRESSIONS:
        return text
    return f"{text}, compressed with {COMPRESSIONS.get(compression, f'method {compression}')}"


def _is_secondary(tags: Mapping[int, int]) -> bool:
    marked = tags.get(SUBFILE, 0) & (REDUCED | MASK)
    return bool(marked) or tags.get(OLD_SUBFILE) == OLD_REDUCED or tags.get(PHOTOMETRIC) == TRANSPARENCY_MASK


def _directories(file: IO[bytes] | None) -> Iterator[dict[int, int]]:
    """Yield the first tags of each page, as far as they are one number.

    Pillow would read all tags of every page, and hostile files have millions.
    """
    if file is None:
        return
    file.seek(0)
    head = file.read(16)
    order = "<" if head.startswith(b"II") else ">"
    count, entry, link = ("Q", "HHQ8s", "Q") if head.startswith(BIGTIFF) else ("H", "HHI4s", "I")
    (at,) = struct.unpack_from(order + link, head, struct.calcsize("=" + link))
    seen: set[int] = set()
    try:
        while at and at not in seen:
            seen.add(at)
            file.seek(at)
            (tags,) = _unpack(file, order + count)
            entries = file.read(min(tags, FIRST_TAGS) * struct.calcsize(order + entry))
            yield {
                tag: struct.unpack_from(order + NUMBER_TYPES[kind], value)[0]
                for tag, kind, values, value in struct.iter_unpack(order + entry, entries)
                if kind in NUMBER_TYPES and values == 1
            }
            file.seek(at + struct.calcsize(order + count) + tags * struct.calcsize(order + entry))
            (at,) = _unpack(file, order + link)
    except (struct.error, OverflowError):
        # The link to the next page leads out of the file.
        return


def _unpack(file: IO[bytes], layout: str) -> tuple[int, ...]:
    return struct.unpack(layout, file.read(struct.calcsize(layout)))


def _tags(image: Image.Image) -> Mapping[int, Any]:
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
    return tags
