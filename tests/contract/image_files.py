"""Image files for every row of the table in trainer/data/decode.py, and files that must be rejected."""

import io
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, TiffImagePlugin

RNG = np.random.default_rng(0)
RGB = Image.fromarray(RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8))
SMOOTH = Image.fromarray(np.linspace(0, 255, 20 * 30 * 3).reshape(20, 30, 3).astype(np.uint8))
RGBA = Image.fromarray(RNG.integers(0, 256, (20, 30, 4), dtype=np.uint8))
RGBA_HW4 = np.asarray(RGBA)
GREY16_HW = RNG.integers(0, 65536, (20, 30), dtype=np.uint16)
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF")
ORIENTATION = 0x0112
EXTRA_SAMPLES = 338
BIG = bytes(3 * 2**20)
"""Metadata that compresses to a few kilobytes."""

Range = tuple[float, float]
Case = bytes | tuple[bytes, Range]
"""A file, with the declared range if it needs one."""


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def rotated_by_exif(kind: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encoded(RGB, kind, exif=exif)


def chunk(kind: bytes, body: bytes, *, damaged: bool = False) -> bytes:
    """A chunk of a PNG."""
    checksum = zlib.crc32(kind + body) ^ damaged
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


def png(width: int, height: int, bits: int, color: int, rows: bytes, *extra: bytes) -> bytes:
    """A PNG with other chunks between its header and its pixels; `rows` begin with their filter."""
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    chunks = (chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


TRANSPARENT_2_BITS = png(4, 1, 2, 0, b"\0\x1b", chunk(b"tRNS", b"\0\x01"))
"""Greys 0 to 3, of which 1 is transparent."""


def png_16_bit(pixels_HWC: npt.NDArray[np.uint16]) -> bytes:
    height, width, channels = pixels_HWC.shape
    rows = b"".join(b"\x00" + row.astype(">u2").tobytes() for row in pixels_HWC)
    return png(width, height, 16, {2: 4, 3: 2, 4: 6}[channels], rows)


def with_chunks(*chunks: bytes, image: Image.Image = RGB) -> bytes:
    """A PNG with chunks before its pixels."""
    data = encoded(image, "PNG")
    return data[:33] + b"".join(chunks) + data[33:]


def tiff(*pages: tuple[npt.NDArray[Any] | bytes, Mapping[int, Any]], size: tuple[int, int] = (30, 20)) -> bytes:
    """An uncompressed TIFF; a page is pixels (HW, HWC or packed rows of `size`), and tags beside the usual ones."""
    data, link = bytearray(struct.pack("<2sHI", b"II", 42, 0)), 4
    for pixels, tags in pages:
        width, height = size if isinstance(pixels, bytes) else (pixels.shape[1], pixels.shape[0])
        bands = 1 if isinstance(pixels, bytes) or pixels.ndim == 2 else pixels.shape[2]
        bits = 8 if isinstance(pixels, bytes) else 8 * pixels.itemsize
        numbers = 1 if isinstance(pixels, bytes) else {"u": 1, "i": 2, "f": 3, "c": 6}[pixels.dtype.kind]
        strip = pixels if isinstance(pixels, bytes) else pixels.tobytes()
        usual = {256: width, 257: height, 258: [bits] * bands, 259: 1, 262: 2 if bands > 2 else 1, 273: len(data)}
        usual |= {277: bands, 278: height, 279: len(strip), 284: 1, 339: [numbers] * bands}
        data += strip
        link = _add_page(data, link, usual | dict(tags))
    return bytes(data)


def _add_page(data: bytearray, link: int, tags: Mapping[int, int | Sequence[int]]) -> int:
    """Append a directory, and return where the offset of the next one belongs."""
    entries = b""
    for tag, value in sorted(tags.items()):
        values = [value] if isinstance(value, int) else list(value)
        packed = struct.pack(f"<{len(values)}I", *values)
        if len(packed) > 4:
            packed, at = struct.pack("<I", len(data)), packed
            data += at
        entries += struct.pack("<HHI", tag, 4, len(values)) + packed
    struct.pack_into("<I", data, link, len(data))
    data += struct.pack("<H", len(tags)) + entries + bytes(4)
    return len(data) - 4


def big_endian_floats() -> bytes:
    """A compressed TIFF of 2x2 floats, which Pillow would read in little-endian order."""
    strip = zlib.compress(np.full(4, 0.5, ">f4").tobytes())
    directory = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"MM")
    # The strip begins at 0 bytes after the directory.
    for tag, value in {256: 2, 257: 2, 258: 32, 259: 8, 262: 1, 273: 0, 278: 2, 279: len(strip), 339: 3}.items():
        directory[tag] = value
    return struct.pack(">2sHI", b"MM", 42, 8) + directory.tobytes(8) + strip


def packed(values_HW: npt.NDArray[np.integer[Any]], bits: int) -> bytes:
    """Rows of values with `bits` bits each."""
    bits_HWb = np.unpackbits(values_HW.astype(">u2")[..., None].view(np.uint8), axis=-1)[..., 16 - bits :]
    return np.packbits(bits_HWb.reshape(len(values_HW), -1), axis=-1).tobytes()


def without_adobe(jpeg: bytes) -> bytes:
    """Remove the Adobe segment, which marks CMYK as stored inverted."""
    start = jpeg.index(b"\xff\xee")
    length = struct.unpack(">H", jpeg[start + 2 : start + 4])[0]
    return jpeg[:start] + jpeg[start + 2 + length :]


def flipped(data: bytes, at: int, bits: int = 1) -> bytes:
    return data[:at] + bytes([data[at] ^ bits]) + data[at + 1 :]


def bmp_16_bit() -> bytes:
    """Colours of 5 bits per channel, which Pillow calls BGR;15; with 6 bits of green, BGR;16."""
    pixels = GREY16_HW.astype("<u2").tobytes()
    masks = struct.pack("<III", 0xF800, 0x07E0, 0x001F)
    info = struct.pack("<IiiHHIIiiII", 40, 30, 20, 1, 16, 3, len(pixels), 0, 0, 0, 0)
    return struct.pack("<2sIHHI", b"BM", 66 + len(pixels), 0, 0, 66) + info + masks + pixels


def twelve_bit_jpeg() -> bytes:
    data = encoded(RGB, "JPEG")
    return flipped(data, data.index(b"\xff\xc0") + 4, 8 ^ 12)


NUMBERS: dict[str, tuple[npt.NDArray[Any], Range]] = {
    "floats": (GREY16_HW.astype(np.float32) / np.float32(65535), (0.0, 1.0)),
    "floats, partly outside": (GREY16_HW.astype(np.float32) - np.float32(99.5), (0.0, 40_000.5)),
    "large floats": (GREY16_HW.astype(np.float32) * np.float32(1e30), (-1e34, 6e34)),
    "signed 32 bits": (GREY16_HW.astype(np.int32) * 30_000 - 2**30, (-(2.0**30), 2.0**29)),
    "unsigned 32 bits": (GREY16_HW.astype(np.uint32) * 65_000, (0.0, 4e9)),
    "signed 16 bits": (GREY16_HW.view(np.int16), (-20_000.0, 20_000.0)),
    "signed 8 bits": (GREY16_HW.astype(np.uint8).view(np.int8), (-128.0, 127.0)),
}
NUMBER_FILES = {name: (tiff((values_HW, {})), value_range) for name, (values_HW, value_range) in NUMBERS.items()}
TWELVE_BITS = packed(GREY16_HW >> 4, 12)
GEOTIFF = {33550: [1, 1, 0]}
OVERVIEW, MASK_PAGE, OVERVIEW_OF_MASK = 1, 4, 5

STORED_TIFFS: dict[str, tuple[npt.NDArray[Any], dict[int, int]]] = {
    "grey": (RGBA_HW4[..., 0], {}),
    "16-bit": (GREY16_HW, {}),
    "RGBA": (RGBA_HW4, {EXTRA_SAMPLES: 2}),
}
ROTATED: dict[str, Case] = {
    f"{turn} {kind}": rotated_by_exif(kind, turn)
    for turn in range(2, 9)
    for kind in ("JPEG", "PNG", "TIFF", "WEBP", "AVIF")
}
PLAIN: dict[str, Case] = {kind: encoded(RGB, kind) for kind in FORMATS}
COMPRESSED: dict[str, Case] = {
    f"{how} TIFF": encoded(SMOOTH, "TIFF", compression=how)
    for how in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "zstd", "lzma")
}
CASES: dict[str, dict[str, Case]] = {
    "unused metadata": {
        "large profile PNG": encoded(RGB, "PNG", icc_profile=BIG),
        "large texts PNG": with_chunks(
            chunk(b"zTXt", b"Comment\0\0" + zlib.compress(BIG)),
            chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(BIG)),
            chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(BIG)),
            *[chunk(b"tEXt", b"Comment\0" + bytes(2**16))] * 9,
        ),
        "many texts PNG": with_chunks(
            *[chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(bytes(2**20 - 1)))] * 70
        ),
        "damaged metadata PNG": with_chunks(
            chunk(b"tEXt", b"Comment\0text", damaged=True),
            chunk(b"iCCP", b"name\0\7unknown"),
            chunk(b"gAMA", b"1"),
            chunk(b"pHYs", b""),
            chunk(b"iTXt", b"Comment\0\1\0\0\0not deflate"),
        ),
        "large JPEG": encoded(RGB, "JPEG", icc_profile=BIG, comment=bytes(60_000)),
        "large WEBP": encoded(RGB, "WEBP", icc_profile=BIG[:10_000], xmp=BIG[:10_000]),
        "large TIFF": encoded(RGB, "TIFF", icc_profile=BIG[:100_000], compression="tiff_lzw"),
        "large AVIF": encoded(RGB, "AVIF", icc_profile=BIG[:10_000], xmp=BIG[:10_000]),
    },
    "EXIF orientation": ROTATED
    | {
        "broken": encoded(RGB, "JPEG", exif=b"Exif\x00\x00MM\x00*\x00\x00\xff\xff broken"),
        **{
            f"{turn} {name} TIFF": tiff((pixels, {ORIENTATION: turn} | tags))
            for turn in range(2, 9)
            for name, (pixels, tags) in STORED_TIFFS.items()
        },
        "XMP in PNG": with_chunks(chunk(b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>')),
        "compressed XMP in PNG": with_chunks(
            chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b'<x tiff:Orientation="8"/>'))
        ),
    },
    "16 bits, grey": {
        "PNG": encoded(Image.fromarray(GREY16_HW), "PNG"),
        "TIFF": encoded(Image.fromarray(GREY16_HW), "TIFF"),
        "big-endian TIFF": encoded(Image.fromarray(GREY16_HW.astype(">u2")), "TIFF"),
        "TIFF of one plane": tiff((GREY16_HW, {284: 2})),
        "PNG, scaled": (encoded(Image.fromarray(GREY16_HW), "PNG"), (100.0, 4095.0)),
        "big-endian TIFF, scaled": (encoded(Image.fromarray(GREY16_HW.astype(">u2")), "TIFF"), (100.0, 4095.0)),
    },
    "floats, 32 bits, 12 bits, grey": {
        "12 bits": (tiff((TWELVE_BITS, {258: 12})), (0.0, 4095.0)),
        **{name: NUMBER_FILES[name] for name in NUMBERS if "8" not in name and "16" not in name},
    },
    "signed 8 or 16 bits, grey": {name: NUMBER_FILES[name] for name in ("signed 8 bits", "signed 16 bits")},
    "16 bits, colour": {
        "RGB": png_16_bit(RNG.integers(0, 65536, (20, 30, 3), dtype=np.uint16)),
        "RGBA": png_16_bit(RNG.integers(0, 65536, (20, 30, 4), dtype=np.uint16)),
        "grey with alpha": png_16_bit(RNG.integers(0, 65536, (20, 30, 2), dtype=np.uint16)),
        "RGB TIFF": tiff((RNG.integers(0, 65536, (20, 30, 3), dtype=np.uint16), {})),
        "RGBA TIFF": tiff((RNG.integers(0, 65536, (20, 30, 4), dtype=np.uint16), {EXTRA_SAMPLES: 2})),
        "RGB, all 16 bits": (png_16_bit(RNG.integers(0, 65536, (20, 30, 3), dtype=np.uint16)), (0.0, 65535.0)),
    },
    "several frames or pages": {
        "COG": tiff(
            (np.asarray(RGB), {}),
            (np.zeros((20, 30), np.uint8), {254: MASK_PAGE, 262: 4}),
            (np.asarray(RGB)[::2, ::2], {254: OVERVIEW}),
            (np.zeros((10, 15), np.uint8), {254: OVERVIEW_OF_MASK, 262: 4}),
        ),
        "older tag": tiff((np.asarray(RGB), {}), (np.asarray(RGB)[::2, ::2], {255: 2})),
        "thumbnail first": tiff((np.asarray(RGB)[::2, ::2], {254: OVERVIEW}), (np.asarray(RGB), {})),
        "overview of another kind": tiff((np.asarray(RGB), {}), (np.zeros((10, 15), np.float64), {254: OVERVIEW})),
        "only an overview": tiff((np.asarray(RGB), {254: OVERVIEW})),
        "two JPEGs in one": encoded(RGB, "MPO", save_all=True, append_images=[SMOOTH]),
    },
    "alpha": {
        "RGBA PNG": encoded(RGBA, "PNG"),
        "RGBA WEBP": encoded(RGBA, "WEBP"),
        "RGBA TIFF": encoded(RGBA, "TIFF"),
        "RGBA AVIF": encoded(RGBA, "AVIF"),
        "LA": encoded(RGBA.convert("LA"), "PNG"),
        "PA": encoded(RGBA.convert("PA"), "TIFF"),
    },
    "premultiplied alpha": {
        "TIFF": encoded(RGBA, "TIFF", tiffinfo={EXTRA_SAMPLES: 1}),
        "GeoTIFF": tiff((RGBA_HW4, {EXTRA_SAMPLES: 1} | GEOTIFF)),
    },
    "transparent colour or entries": {
        "RGB": encoded(RGB, "PNG", transparency=RGB.getpixel((3, 3))),
        "grey": encoded(RGB.convert("L"), "PNG", transparency=100),
        "1 bit": encoded(RGB.convert("1"), "PNG", transparency=0),
        "2 bits": TRANSPARENT_2_BITS,
        "4 bits": png(4, 1, 4, 0, b"\0\x02\x5f", chunk(b"tRNS", b"\0\x05")),
        "palette, one": encoded(RGB.quantize(8), "PNG", transparency=0),
        "palette, some": encoded(RGB.quantize(8), "PNG", transparency=bytes([0, 128, 255, 255])),
    },
    "fourth band of a GeoTIFF": {
        "marked as alpha": tiff((RGBA_HW4, {EXTRA_SAMPLES: 2} | GEOTIFF)),
        "not marked": tiff((RGBA_HW4, GEOTIFF)),
        "GDAL's metadata": tiff((RGBA_HW4, {EXTRA_SAMPLES: 2, 42112: [0] * 9})),
        "unspecified": tiff((RGBA_HW4, {EXTRA_SAMPLES: 0} | GEOTIFF)),
    },
    "palette": {"PNG": encoded(RGB.quantize(8), "PNG"), "BMP": encoded(RGB.quantize(8), "BMP")},
    "1, 2 or 4 bits, grey": {
        "1 bit": encoded(RGB.convert("1"), "PNG"),
        "1 bit TIFF": encoded(RGB.convert("1"), "TIFF"),
        "2 bits TIFF": tiff((packed(GREY16_HW >> 14, 2), {258: 2})),
        "4 bits TIFF": tiff((packed(GREY16_HW >> 12, 4), {258: 4})),
        "4 bits PNG": png(30, 20, 4, 0, b"".join(b"\0" + packed(row[None] >> 12, 4) for row in GREY16_HW)),
        "4 bits TIFF, white is zero": tiff((packed(GREY16_HW >> 12, 4), {258: 4, 262: 0})),
        "grey PNG": encoded(RGB.convert("L"), "PNG"),
        "grey JPEG": encoded(RGB.convert("L"), "JPEG"),
        "grey AVIF": encoded(RGB.convert("L"), "AVIF"),
        "grey WEBP": encoded(RGB.convert("L"), "WEBP"),
    },
    "CMYK": {
        "Adobe JPEG": encoded(RGB.convert("CMYK"), "JPEG"),
        "plain JPEG": without_adobe(encoded(RGB.convert("CMYK"), "JPEG")),
        "TIFF": encoded(RGB.convert("CMYK"), "TIFF"),
    },
    "YCbCr, Lab, HSV": {
        "YCbCr": encoded(RGB.convert("YCbCr"), "TIFF"),
        "Lab": encoded(Image.frombytes("LAB", RGB.size, RGB.tobytes()), "TIFF"),
    },
    "an unused fourth channel": {
        "TIFF": encoded(RGB.convert("RGBX"), "TIFF"),
        "and a fifth": tiff((np.concatenate([np.asarray(RGBA), RGBA_HW4[..., :1]], -1), {EXTRA_SAMPLES: [0, 0]})),
    },
    "": PLAIN
    | COMPRESSED
    | {
        "progressive JPEG": encoded(SMOOTH, "JPEG", progressive=True),
        "lossless WEBP": encoded(RGB, "WEBP", lossless=True),
        "8 bits are not scaled": (encoded(RGB, "PNG"), (0.0, 1.0)),
        "BMP with 5 bits a channel": (bmp_16_bit(), (0.0, 1.0)),
    },
}
"""Files by row of the table; "" = plain RGB, which has no row."""

MANY = np.zeros((20, 30, 5), np.uint8)
CUT_OFF: dict[str, tuple[bytes, Range | None, str]] = {
    f"cut off {kind}": (encoded(RGB, kind)[:200], None, "") for kind in FORMATS
}
AS_FLOATS = r"[:;] save it as 32-bit floats, which need data\.range"
REJECTED: dict[str, dict[str, tuple[bytes, Range | None, str]]] = {
    "damaged, truncated": CUT_OFF
    | {
        "no image": (b"\0no image", None, "not JPEG"),
        "empty": (b"", None, "not JPEG"),
        "checksum of the header": (with_chunks()[:29] + b"1234" + with_chunks()[33:], None, "checksum of its IHDR"),
        "checksum of the pixels": (flipped(encoded(RGB, "PNG"), 60), None, "checksum of its IDAT"),
        "checksum of the transparency": (with_chunks(chunk(b"tRNS", bytes(6), damaged=True)), None, "its tRNS"),
        "PNG of an iOS app": (with_chunks()[:8] + chunk(b"CgBI", bytes(4)) + with_chunks()[8:], None, "CgBI"),
        "many chunks": (with_chunks(*[chunk(b"tIME", b"")] * 100_001), None, "has more than 100000 chunks"),
        "TIFF without tags": (b"II*\0\x08\0\0\0\0\0\0\0\0\0", None, "TIFF is damaged"),
    },
    "floats, 32 bits, 12 bits, grey": {
        "floats without a range": (NUMBER_FILES["floats"][0], None, r"32-bit floats.*data\.range"),
        "32 bits without a range": (NUMBER_FILES["unsigned 32 bits"][0], None, r"32-bit unsigned.*data\.range"),
        "12 bits without a range": (tiff((TWELVE_BITS, {258: 12})), None, r"12-bit integers.*data\.range"),
        "NaN": (
            tiff((np.array([[0, np.nan]], np.float32), {})),
            (0.0, 1.0),
            r"not finite numbers; replace .* by numbers\.?$",
        ),
        "infinity": (
            tiff((np.array([[0, np.inf]], np.float32), {})),
            (0.0, 1.0),
            r"not finite numbers; replace .* by numbers\.?$",
        ),
    },
    "signed 8 or 16 bits, grey": {
        "16 bits": (NUMBER_FILES["signed 16 bits"][0], None, r"16-bit signed.*data\.range"),
        "8 bits": (NUMBER_FILES["signed 8 bits"][0], None, r"8-bit signed.*data\.range"),
    },
    "transparent colour of 16 bits": {
        "grey": (png(2, 1, 16, 0, b"\0\1\2\3\4", chunk(b"tRNS", b"\3\4")), None, "of 16 bits"),
        "colour": (png(1, 1, 16, 2, b"\0\1\2\3\4\5\6", chunk(b"tRNS", b"\1\2\3\4\5\6")), None, "of 16 bits"),
    },
    "16 bits, colour": {
        "PNG": (png_16_bit(np.zeros((2, 2, 3), np.uint16)), (0.0, 4095.0), "upper 8 bits"),
        "TIFF": (tiff((np.zeros((2, 2, 4), np.uint16), {EXTRA_SAMPLES: 2})), (0.0, 4095.0), "upper 8 bits"),
    },
    "other numbers or bands": {
        "5 bands": (tiff((MANY, {262: 1, EXTRA_SAMPLES: [0] * 4})), None, "5 bands of 8-bit unsigned.* marked as grey"),
        "RGB of floats": (tiff((MANY[..., :3].astype(np.float32), {})), None, "3 bands of 32-bit floats"),
        "64-bit floats": (tiff((MANY[..., 0].astype(np.float64), {})), None, f"1 band.* of 64-bit floats.*{AS_FLOATS}"),
        "16-bit floats": (tiff((MANY[..., 0].astype(np.float16), {})), None, f"1 band.* of 16-bit floats.*{AS_FLOATS}"),
        "64-bit integers": (tiff((MANY[..., 0].astype(np.uint64), {})), None, f"of 64-bit unsigned.*{AS_FLOATS}"),
        "complex": (
            tiff((MANY[..., 0].astype(np.complex64), {})),
            None,
            "of 64-bit .*, marked as grey[:;] save it as grey",
        ),
        "LERC": (tiff((MANY[..., 0], {259: 34887})), None, "compressed with LERC"),
        "WebP in TIFF": (tiff((MANY[..., :3], {259: 50001})), None, "compressed with WebP"),
        "16 bits, zero is white": (tiff((GREY16_HW, {262: 0})), None, "zero is white"),
        "floats, zero is white": (tiff((np.zeros((2, 2), np.float32), {262: 0})), (0.0, 1.0), "zero is white"),
        "16-bit planes": (tiff((MANY[..., :3].astype(np.uint16), {284: 2})), None, "in separate planes"),
        "grey planes": (tiff((MANY, {262: 1, 284: 2, EXTRA_SAMPLES: [0] * 4})), None, "5 bands in separate planes"),
        "compressed big-endian floats": (big_endian_floats(), (0.0, 1.0), "big-endian"),
        "12-bit JPEG": (twelve_bit_jpeg(), None, "12-bit layers"),
        "raw file": (tiff((MANY[..., :3], {254: OVERVIEW, 330: 8})), None, "thumbnail"),
        "BMP of 13 bits": (flipped(encoded(RGB, "BMP"), 28, 24 ^ 13), None, "pixel depth"),
    },
}
"""Files, their declared range, and a part of the message."""


def with_range(case: Case) -> tuple[bytes, Range | None]:
    return case if isinstance(case, tuple) else (case, None)
