"""Decode images, run the tensor model and return PNG masks, in Triton's Python backend.

Needs Python 3.10 or newer, the container's numpy, and Pillow: `pip install pillow` in the container. Do not upgrade
numpy: the Python backend of Triton 24.10 corrupts tensors under numpy 2.

Rules for images, in this order; Maskloop's service has the same:

| image                      | result                                                               |
|----------------------------|----------------------------------------------------------------------|
| more bytes than allowed    | rejected                                                             |
| not one of FORMATS         | rejected                                                             |
| more pixels than allowed   | rejected by the header alone, before anything is decoded             |
| several frames or pages    | rejected; of a JPEG with previews or gain maps, the main image;      |
|                            | overviews, thumbnails and masks in a TIFF do not count               |
| truncated, damaged         | rejected, with the damage                                            |
| unused metadata            | ignored, however large or damaged it is                              |
| 16 bits, grey              | scaled by `value_range`; without one, the upper 8 bits               |
| 16 bits, colour            | the upper 8 bits; rejected if `value_range` is not 0 to 65535        |
| floats, 32 bits, 12 bits,  | scaled by `value_range`; without one rejected, also with NaN         |
| signed integers            |                                                                      |
| other numbers or bands     | rejected, with what the file holds                                   |
| alpha of any kind          | composited on white                                                  |
| fourth band of a GeoTIFF   | ignored, unless it is premultiplied alpha                            |
| transparent colour, 16 bits| rejected                                                             |
| palette, grey, CMYK, ...   | converted to RGB by Pillow                                           |
| EXIF orientation           | applied: the mask matches the image as viewers show it               |

A rejected image fails only its own request.
"""

import asyncio
import io
import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import COMPRESSION_INFO, ImageFileDirectory_v2

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.unsignedinteger[Any]]
ValueRange = tuple[float, float]

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_USED = {b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT"}
PNG_TEXTS = {b"tEXt", b"zTXt", b"iTXt"}
# Texts that may hold an orientation; Pillow decompresses 1 MiB of a text.
PNG_ORIENTATION = (b"Raw profile type exif", b"XML:com.adobe.xmp")
MAX_TEXT_BYTES, MAX_CHUNKS = 2**20, 100_000
# TIFF and EXIF tags.
BITS, COMPRESSION, PHOTOMETRIC, ORIENTATION, SAMPLES, TILE_WIDTH, TILE_LENGTH = 258, 259, 262, 274, 277, 322, 323
SUBFILE, OLD_SUBFILE, PLANES, SUB_IFDS, EXTRA_SAMPLES, SAMPLE_FORMAT = 254, 255, 284, 330, 338, 339
# GDAL marks the fourth band of every file with these tags as alpha; it is often infrared.
GEOGRAPHIC = {33550, 33922, 34264, 34735, 42112, 42113}
NUMBERS = {1: "unsigned integers", 2: "signed integers", 3: "floats"}
COMPRESSIONS = {34712: "JPEG 2000", 34887: "LERC", 50001: "WebP", 50002: "JPEG XL"}
# Thumbnails may precede a picture. Tags are sorted by number, and those that tell pages apart come first.
MAX_PAGES, MAX_PAGES_BEFORE, FIRST_TAGS = 100, 4, 16
UNSUPPORTED = ("unknown pixel mode", "samples per pixel", "cannot handle", "nsupported", "not supported")
CONVERT = "save it as grey or RGB with 8 bits per channel"
CONVERT_NUMBERS = (
    "save it as 32-bit floats, which need data.range in the recipe, or as grey or RGB with 8 bits per channel"
)
MAX_SCANS, SCAN_MARKER = 100, b"\xff\xda"
PNG_LEVEL, PNG_STRATEGY = 1, 3


class InvalidImageError(ValueError):
    """The image breaks a rule; the message states the remedy."""


class TensorModelError(RuntimeError):
    """An error of the tensor model, with Triton's code, which tells the client whether to retry."""

    def __init__(self, message: str, code: Any) -> None:
        super().__init__(message)
        self.code = code


class TritonPythonModel:
    """Triton's interface of a Python model: image_bytes [N, 1] to mask_png [N, 1], both bytes."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the parameters of config.pbtxt; `args["model_config"]` is that file as JSON."""
        # Exists only inside Triton; the functions below do not need it.
        import triton_python_backend_utils  # type: ignore[import-not-found, unused-ignore] # noqa: PLC0415

        self.triton: Any = triton_python_backend_utils
        parameters = json.loads(args["model_config"])["parameters"]
        self.tensor_model = parameters["tensor_model"]["string_value"]
        self.max_bytes = int(parameters["max_image_bytes"]["string_value"])
        self.max_pixels = int(parameters["max_image_pixels"]["string_value"])
        # Absent in a file that an earlier version wrote.
        value_range = parameters.get("value_range", {}).get("string_value")
        self.value_range = tuple(json.loads(value_range)) if value_range else None
        self.palette = palette(json.loads(parameters["classes"]["string_value"]))

    async def execute(self, requests: list[Any]) -> list[Any]:
        """Return the response or error of each request, in order."""
        return list(await asyncio.gather(*map(self._respond, requests)))

    async def _respond(self, request: Any) -> Any:
        triton = self.triton
        try:
            files = triton.get_input_tensor_by_name(request, "image_bytes").as_numpy()
            pngs = [await self._mask_png(file) for file in files.reshape(-1)]
        except InvalidImageError as error:
            return triton.InferenceResponse(error=triton.TritonError(str(error), triton.TritonError.INVALID_ARG))
        except TensorModelError as error:
            return triton.InferenceResponse(error=triton.TritonError(str(error), error.code))
        except Exception as error:  # most likely MemoryError
            return triton.InferenceResponse(error=triton.TritonError(f"{type(error).__name__}: {error}"))
        output = np.array(pngs, dtype=np.object_).reshape(files.shape)
        return triton.InferenceResponse(output_tensors=[triton.Tensor("mask_png", output)])

    async def _mask_png(self, file: bytes) -> bytes:
        # Pillow releases the GIL while it decodes and encodes.
        image_HW3 = await asyncio.to_thread(decode, file, self.max_bytes, self.max_pixels, self.value_range)
        mask_HW = await self._segment(image_HW3)
        return await asyncio.to_thread(mask_png, mask_HW, self.palette)

    async def _segment(self, image_HW3: Pixels) -> Mask:
        """Run the newest ready version of the tensor model."""
        triton = self.triton
        response = await triton.InferenceRequest(
            model_name=self.tensor_model,
            requested_output_names=["mask"],
            inputs=[triton.Tensor("image", image_HW3[None])],
            # A mask in GPU memory could not be read here.
            preferred_memory=triton.PreferredMemory(triton.TRITONSERVER_MEMORY_CPU, 0),
        ).async_exec()
        if response.has_error():
            error = response.error()
            raise TensorModelError(f"{self.tensor_model}: {error.message()}", error.code())
        # Copy: Triton frees the tensor's memory with the response.
        mask_1HW: Mask = np.array(triton.get_output_tensor_by_name(response, "mask").as_numpy())
        mask_HW: Mask = mask_1HW[0]
        return mask_HW


def decode(data: bytes, max_bytes: int, max_pixels: int, value_range: ValueRange | None = None) -> Pixels:
    """Decode an image file by the rules above to uint8 [H, W, 3], RGB, contiguous. Raises InvalidImageError."""
    if len(data) > max_bytes:
        raise InvalidImageError(
            f"the image has {len(data)} bytes and {max_bytes} are allowed: compress it, or increase max_image_bytes in "
            "config.pbtxt"
        )
    try:
        with open_image(without_metadata(data), max_pixels) as image:
            check_header(image, data, max_pixels)
            check_values(image, value_range)
            orientation = orientation_of(image)
            image.load()
            return np.ascontiguousarray(apply_orientation(rgb(image, value_range), orientation), dtype=np.uint8)
    except InvalidImageError:
        raise
    except Exception as error:  # Pillow raises many types for invalid files
        raise InvalidImageError(f"the image is damaged or incomplete ({error}): send the whole file again") from None


def open_image(data: bytes, max_pixels: int) -> Image.Image:
    """Open a file; raises InvalidImageError with the reason, which Pillow drops."""
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        raise InvalidImageError(too_many_pixels("far more", max_pixels)) from None
    except Exception:  # Pillow raises many types for invalid files
        recognised = [name for name in FORMATS if (accepts := Image.OPEN[name][1]) and accepts(data[:16]) is True]
    if not recognised:
        raise InvalidImageError(f"the file is not {', '.join(FORMATS[:-1])} or {FORMATS[-1]}: convert the image")
    reason = ""
    try:
        Image.OPEN[recognised[0]][0](io.BytesIO(data), "")
    except Exception as error:  # the same as before
        reason = str(error) or type(error).__name__
    # Of a TIFF with an unknown compression, the reason is its number.
    if reason.isdigit() or any(part in reason for part in UNSUPPORTED):
        kind = (
            describe_tiff(data) if recognised == ["TIFF"] else f"a {recognised[0]} that Pillow does not read: {reason}"
        )
        is_numbers = " 1 bands of" in kind and kind.endswith(", marked as grey") and "values" not in kind
        raise InvalidImageError(f"the file is {kind}: {CONVERT_NUMBERS if is_numbers else CONVERT}")
    raise InvalidImageError(f"the {recognised[0]} is damaged ({reason}): send the whole file again")


def describe_tiff(data: bytes) -> str:
    """Describe the first page."""
    tags = ImageFileDirectory_v2(data[: 16 if data[2] == 43 else 8])
    file = io.BytesIO(data)
    file.seek(tags.next)
    tags.load(file)
    number = tags.get(COMPRESSION, 1)
    text = f"a TIFF with {tags.get(SAMPLES, 1)} bands of {tags.get(BITS, (1,))[0]}-bit {numbers(tags)}"
    text += {0: ", marked as grey", 1: ", marked as grey", 2: ", marked as RGB"}.get(tags.get(PHOTOMETRIC, 0), "")
    return text if number in COMPRESSION_INFO else f"{text}, compressed with {COMPRESSIONS.get(number, number)}"


def without_metadata(data: bytes) -> bytes:
    """Return a PNG without unused chunks, for which Pillow would reject it; raises ValueError if another is damaged."""
    if not data.startswith(PNG_SIGNATURE):
        return data
    view, used, at, kept = memoryview(data), bytearray(), len(PNG_SIGNATURE), 0
    # Only the first of each: a file could hold thousands that decompress to 1 MiB each.
    texts, chunks = set(PNG_ORIENTATION), 0
    if data[12:16] == b"CgBI":
        raise InvalidImageError("the file is a PNG of an iOS app (CgBI): convert it")
    while at + 8 <= len(data):
        end, kind = at + 12 + int.from_bytes(view[at : at + 4], "big"), data[at + 4 : at + 8]
        if kind == b"IEND" or not kind.isalpha():
            break
        if (chunks := chunks + 1) > MAX_CHUNKS:
            raise ValueError(f"it has more than {MAX_CHUNKS} chunks")
        if not is_used(kind, view[at + 8 : end - 4], texts):
            used += view[kept:at]
            kept = end
        elif end <= len(data) and zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise ValueError(f"the checksum of its {kind.decode()} chunk is wrong")
        at = end
    return bytes(used + view[kept:]) if used else data


def is_used(kind: bytes, body: memoryview, texts: set[bytes]) -> bool:
    """Whether a chunk affects pixels or orientation: critical, in upper case, or one of `texts`, which loses it."""
    if kind not in PNG_TEXTS:
        return kind in PNG_USED or not kind[0] & 0x20
    keyword, _, text = bytes(body).partition(b"\0")
    if keyword not in texts:
        return False
    texts.remove(keyword)
    if kind == b"tEXt" or (kind == b"iTXt" and not text.startswith(b"\1")):
        return True
    unpacker = zlib.decompressobj()
    try:
        unpacker.decompress(text[1:] if kind == b"zTXt" else text[2:].split(b"\0", 2)[-1], MAX_TEXT_BYTES)
    except zlib.error:
        return False
    return not unpacker.unconsumed_tail


def check_header(image: Image.Image, data: bytes, max_pixels: int) -> None:
    """Check the rules that need no decoding; raises InvalidImageError."""
    # Unlike `n_frames`, neither reads all pages of a TIFF. MPO is a JPEG file with several images.
    several = select_page(image) if image.format == "TIFF" else getattr(image, "is_animated", False)
    width, height = image.size
    if width * height > max_pixels:
        raise InvalidImageError(too_many_pixels(f"{width}x{height}", max_pixels))
    if several and image.format != "MPO":
        raise InvalidImageError("the file has several frames: send one frame as a separate file")
    tags = getattr(image, "tag_v2", {})
    # Pillow decodes whole tiles.
    tile_pixels = int(tags.get(TILE_WIDTH, 0)) * int(tags.get(TILE_LENGTH, 0))
    if tile_pixels > max_pixels:
        raise InvalidImageError(too_many_pixels(f"tiles with {tile_pixels}", max_pixels))
    # Each scan is a pass over all pixels, and a small file can hold thousands.
    if "progressive" in image.info and data.count(SCAN_MARKER) > MAX_SCANS:
        raise InvalidImageError(f"the JPEG has more than {MAX_SCANS} scans: save it again as a baseline JPEG")


def too_many_pixels(found: str, max_pixels: int) -> str:
    """Return the error message."""
    return (
        f"the image has {found} pixels and {max_pixels} are allowed: scale it down, or increase max_image_pixels in "
        "config.pbtxt"
    )


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 if it is missing or unreadable."""
    if image.format == "TIFF":
        return 1  # Pillow applies a TIFF's orientation when it loads the image
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # Pillow raises many types for broken EXIF
        return 1
    return value if isinstance(value, int) else 1


def select_page(image: Any) -> bool:
    """Select the first page of a TIFF that is no overview, thumbnail or mask, and return whether there is another."""
    found: list[int] = []
    for page, tags in enumerate(directories(image.fp)):
        # Reduced: bit 1, or 2 in the older tag. Mask: bit 4, or 4 as colour space.
        if not tags.get(SUBFILE, 0) & 5 and tags.get(OLD_SUBFILE) != 2 and tags.get(PHOTOMETRIC) != 4:
            found.append(page)
        if len(found) > 1 or page == MAX_PAGES or (page == MAX_PAGES_BEFORE and not found):
            break
    image.seek(found[0] if found else 0)
    if in_raw_planes(image.tag_v2) and is_grey_16(image):
        # Of one band. Pillow takes the first letter of the mode for the band's.
        image.tile = [tile._replace(args=(image.mode, *tile.args[1:])) for tile in image.tile]
    if not found and SUB_IFDS in image.tag_v2:
        raise InvalidImageError("the file is a TIFF with a thumbnail, as raw files of cameras: send a developed image")
    return len(found) > 1


def in_raw_planes(tags: Any) -> bool:
    """Whether bands are stored one after the other, not compressed."""
    return bool(tags.get(COMPRESSION, 1) == 1 and tags.get(PLANES) == 2)


def is_grey_16(image: Any) -> bool:
    """Whether pixels are unsigned integers of 16 bits."""
    return bool(image.mode.startswith("I;16") and image.tag_v2.get(BITS, (8,))[0] == 16)


def directories(file: Any) -> Iterator[dict[int, int]]:
    """Yield the first tags of each page; Pillow would read all tags, and hostile files have millions."""
    file.seek(0)
    head = file.read(16)
    order = "<" if head.startswith(b"II") else ">"
    count, entry, link = ("Q", "HHQ8s", "Q") if head[2] == 43 else ("H", "HHI4s", "I")
    (at,) = struct.unpack_from(order + link, head, struct.calcsize("=" + link))
    seen: set[int] = set()
    try:
        while at and at not in seen:
            seen.add(at)
            file.seek(at)
            (tags,) = struct.unpack(order + count, file.read(struct.calcsize("=" + count)))
            size = struct.calcsize("=" + entry)
            entries = struct.iter_unpack(order + entry, file.read(min(tags, FIRST_TAGS) * size))
            yield {
                tag: struct.unpack_from(order + {3: "H", 4: "I"}[kind], value)[0]
                for tag, kind, values, value in entries
                if kind in (3, 4) and values == 1
            }
            file.seek(at + struct.calcsize("=" + count) + tags * size)
            (at,) = struct.unpack(order + link, file.read(struct.calcsize("=" + link)))
    except (struct.error, OverflowError):  # the link to the next page leads out of the file
        return


def numbers(tags: Any) -> str:
    """The kind of numbers in a TIFF."""
    return NUMBERS.get(tags.get(SAMPLE_FORMAT, (1,))[0], "values")


def undeclared_numbers(image: Image.Image) -> str | None:
    """Describe the numbers of an image if its format does not define which are black and white."""
    tags: Any = getattr(image, "tag_v2", {})
    bits, kind = tags.get(BITS, (8,))[0], numbers(tags)
    if image.mode in ("I", "F") or (image.mode == "L" and kind == "signed integers"):
        return f"{bits}-bit {kind}"
    return "12-bit integers" if image.mode.startswith("I;16") and bits == 12 else None


def unreadable_kind(image: Image.Image, tags: Any) -> str | None:
    """Describe a TIFF that Pillow opens, but does not decode, or decodes to wrong numbers; the remedy follows."""
    bits, compression = tags.get(BITS, (8,))[0], tags.get(COMPRESSION, 1)
    in_planes, bands = in_raw_planes(tags), tags.get(SAMPLES, 1)
    if compression in COMPRESSIONS:
        return f"compressed with {COMPRESSIONS[compression]}: use deflate or LZW"
    if tags.get(PHOTOMETRIC) == 0 and (in_planes or bits > 8):
        return f"of {bits}-bit {numbers(tags)} in which zero is white: invert it, so that zero is black"
    if tags.get(PLANES) == 2 and tags.get(PHOTOMETRIC) in (0, 1) and bands > 1:
        return f"of {bands} bands in separate planes, marked as grey: save one or three of them"
    if in_planes and bits not in (1, 8, 32) and not is_grey_16(image):
        return f"of {bits}-bit {numbers(tags)} in separate planes: save it with interleaved bands, or compress it"
    is_big_endian = getattr(tags, "prefix", b"") == b"MM"
    if is_big_endian and image.mode in ("I", "F") and (in_planes or compression != 1):
        return f"of {bits}-bit {numbers(tags)} in big-endian order: save it in little-endian order"
    return None


def check_values(image: Image.Image, value_range: ValueRange | None) -> None:
    """Check the rules of numbers; raises InvalidImageError."""
    tags: Any = getattr(image, "tag_v2", {})
    if kind := unreadable_kind(image, tags):
        raise InvalidImageError(f"the file is a TIFF {kind}")
    if value_range is None and (kind := undeclared_numbers(image)):
        raise InvalidImageError(
            f"the pixels are {kind}, and the model does not declare which values are black and white: train it with "
            f"data.range = [BLACK, WHITE] in the recipe, or {CONVERT}"
        )
    tiles: Any = getattr(image, "tile", [])
    stored_as, color = str(tiles[0].args if tiles else ""), image.info.get("transparency")
    if image.format == "PNG" and color is not None and ";16" in stored_as:
        raise InvalidImageError(
            "a colour of 16 bits is marked as transparent, which is not supported: save the image with an alpha "
            "channel, or with 8 bits per channel"
        )
    if isinstance(color, int) and stored_as in ("L;2", "L;4"):
        # Pillow compares it, as stored, with grey that it stretches to 8 bits.
        image.info["transparency"] = color * {"L;2": 85, "L;4": 17}[stored_as]
    is_16_bit = image.format in ("PNG", "TIFF") and ";16" in stored_as
    if is_16_bit and image.mode[:1] != "I" and value_range not in (None, (0.0, 65535.0)):
        raise InvalidImageError(
            "only the upper 8 bits of colours with 16 bits can be read, and the model declares another range of "
            f"values: scale the image to that range and {CONVERT}"
        )


def rgb(image: Image.Image, value_range: ValueRange | None) -> Image.Image:
    """Convert any of Pillow's modes to RGB."""
    tags: Any = getattr(image, "tag_v2", {})
    if value_range and (image.mode.startswith("I;16") or undeclared_numbers(image)):
        return Image.fromarray(scale_to_uint8(image, value_range)).convert("RGB")
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "RGBA" and not GEOGRAPHIC.isdisjoint(tags) and tags.get(EXTRA_SAMPLES) != (1,):
        return image.convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def scale_to_uint8(image: Image.Image, value_range: ValueRange) -> Pixels:
    """Scale to 0..255 in 256 equal steps; values outside the range become black or white."""
    values_HW, kind = np.asarray(image), undeclared_numbers(image)
    # Pillow takes these for other types of the same size.
    stored_as = {"8-bit signed integers": np.int8, "32-bit unsigned integers": np.uint32}.get(kind or "")
    numbers_HW = values_HW.view(stored_as) if stored_as else values_HW
    if not np.isfinite(numbers_HW).all():
        raise InvalidImageError("some pixels are not finite numbers; replace NaN and infinity by numbers")
    black, white = value_range
    return ((np.clip(numbers_HW.astype(np.float64), black, white) - black) * (255.999 / (white - black))).astype(
        np.uint8
    )


def apply_orientation(image: Image.Image, orientation: int) -> Image.Image:
    """Rotate and flip the image as viewers show it."""
    # The conversion to RGB may have dropped the EXIF data.
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image.info = {"exif": exif.tobytes()}
    return ImageOps.exif_transpose(image)


def palette(classes: list[dict[str, Any]]) -> bytes:
    """Return the class colours as a PNG palette, 256 times RGB."""
    colors = np.zeros((256, 3), dtype=np.uint8)
    for entry in classes[:256]:
        colors[entry["id"]] = entry["color"]
    return colors.tobytes()


def mask_png(mask_HW: Mask, colors: bytes) -> bytes:
    """Encode class ids [H, W]: uint8 as an indexed PNG with the colours of `palette`, uint16 as a 16-bit grey PNG."""
    image = Image.fromarray(mask_HW)
    if mask_HW.dtype == np.uint8:
        image.putpalette(colors)
    sink = io.BytesIO()
    image.save(sink, format="PNG", compress_level=PNG_LEVEL, compress_type=PNG_STRATEGY)
    return sink.getvalue()
