"""Decode images, run the tensor model and return PNG masks, in Triton's Python backend.

Needs Python 3.10 or newer, the container's numpy, and Pillow: `pip install pillow` in the container. Do not upgrade
numpy: the Python backend of Triton 24.10 corrupts tensors under numpy 2.

Rules for images, in this order; Maskloop's service has the same:

| image                      | result                                                               |
|----------------------------|----------------------------------------------------------------------|
| more bytes than allowed    | rejected                                                             |
| not one of FORMATS         | rejected                                                             |
| more pixels than allowed   | rejected by the header alone, before anything is decoded             |
| several frames or pages    | rejected; of a JPEG with previews or gain maps, the main image       |
| truncated, damaged         | rejected                                                             |
| 12 and 16 bits per channel | the upper 8 bits                                                     |
| 32-bit integers, floats    | divided by the smallest of 1 (floats), 255 and 65535 that no value   |
|                            | exceeds; if none, scaled from the smallest to the largest value      |
| alpha of any kind          | composited on white                                                  |
| palette, grey, CMYK, ...   | converted to RGB by Pillow                                           |
| EXIF orientation           | applied: the mask matches the image as viewers show it               |

A rejected image fails only its own request.
"""

import asyncio
import io
import json
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.unsignedinteger[Any]]

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF")
# TIFF and EXIF tags.
BITS, ORIENTATION, TILE_WIDTH, TILE_LENGTH = 0x0102, 0x0112, 0x0142, 0x0143
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
        image_HW3 = await asyncio.to_thread(decode, file, self.max_bytes, self.max_pixels)
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


def decode(data: bytes, max_bytes: int, max_pixels: int) -> Pixels:
    """Decode an image file by the rules above to uint8 [H, W, 3], RGB, contiguous. Raises InvalidImageError."""
    if len(data) > max_bytes:
        raise InvalidImageError(
            f"the image has {len(data)} bytes and {max_bytes} are allowed: compress it, or increase max_image_bytes in "
            "config.pbtxt"
        )
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            check_header(image, data, max_pixels)
            orientation = orientation_of(image)
            image.load()
            return np.ascontiguousarray(apply_orientation(rgb(image), orientation), dtype=np.uint8)
    except InvalidImageError:
        raise
    except UnidentifiedImageError:
        raise InvalidImageError(
            f"the file is not {', '.join(FORMATS[:-1])} or {FORMATS[-1]}: convert the image"
        ) from None
    except Image.DecompressionBombError:
        raise InvalidImageError(too_many_pixels("far more", max_pixels)) from None
    except Exception as error:  # Pillow raises many types for invalid files
        raise InvalidImageError(f"the image is damaged or incomplete ({error}): send the whole file again") from None


def check_header(image: Image.Image, data: bytes, max_pixels: int) -> None:
    """Check the rules that need no decoding; raises InvalidImageError."""
    width, height = image.size
    if width * height > max_pixels:
        raise InvalidImageError(too_many_pixels(f"{width}x{height}", max_pixels))
    # Unlike `n_frames`, `is_animated` does not read all pages of a TIFF. MPO is a JPEG file with several images.
    if getattr(image, "is_animated", False) and image.format != "MPO":
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


def rgb(image: Image.Image) -> Image.Image:
    """Convert any of Pillow's modes to RGB."""
    if image.mode.startswith("I;16"):
        # Also the mode of a 12-bit grey TIFF.
        shift = 4 if getattr(image, "tag_v2", {}).get(BITS) == (12,) else 8
        return Image.fromarray((np.asarray(image) >> shift).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        return Image.fromarray(scale_to_uint8(np.asarray(image, dtype=np.float64), image.mode)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def scale_to_uint8(values_HW: npt.NDArray[np.float64], mode: str) -> Pixels:
    """Scale integers or floats of unknown range to 0..255 by the rules above."""
    low, high = float(values_HW.min()), float(values_HW.max())
    if not np.isfinite(high - low):
        raise ValueError("its pixels are not all finite numbers")
    for white in (255.0, 65535.0) if mode == "I" else (1.0, 255.0, 65535.0):
        if low >= 0 and high <= white:
            low, high = 0.0, white
            break
    step = 255.999 / (high - low) if high > low else 0.0
    return ((values_HW - low) * step).astype(np.uint8)


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
