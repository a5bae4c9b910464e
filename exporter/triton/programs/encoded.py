"""Encoded images in, PNG masks out. Triton's Python backend runs this; the pixels go through the tensor model.

It stands alone: Python 3.10 or newer, with numpy, which Triton's container has, and Pillow: `pip install pillow` there.
Leave the container's numpy as it is: Triton 24.10's Python backend garbles tensors under numpy 2.

What becomes of an image, in the order in which the rules apply; Maskloop's service has the same:

| what comes in              | what becomes of it                                                   |
|----------------------------|----------------------------------------------------------------------|
| more bytes than allowed    | refused                                                              |
| none of FORMATS            | refused                                                              |
| more pixels than allowed   | refused, from the header alone: nothing has been decoded             |
| several frames or pages    | refused; of a JPEG with previews or gain maps, the picture           |
| truncated, damaged         | refused                                                              |
| 12 and 16 bits a channel   | the upper 8 bits                                                     |
| 32-bit integers, floats    | scaled by the least of 1 (floats), 255 and 65535 that no value       |
|                            | exceeds, else by the least and the greatest value                    |
| alpha of any kind          | composited on white                                                  |
| palette, grey, CMYK, ...   | converted by Pillow                                                  |
| EXIF orientation           | applied: the mask fits the picture as viewers show it                |

A refused image is an error of its own request; the others of its batch get their masks.
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
# Tags of TIFF and EXIF.
BITS, ORIENTATION, TILE_WIDTH, TILE_LENGTH = 0x0102, 0x0112, 0x0142, 0x0143
MAX_SCANS, SCAN = 100, b"\xff\xda"
PNG_LEVEL, PNG_STRATEGY = 1, 3


class RefusedError(ValueError):
    """An image that is not segmented; the message says why and what to do."""


class TensorModelError(RuntimeError):
    """The tensor model gave no mask."""

    def __init__(self, message: str, code: Any) -> None:
        super().__init__(message)
        self.code = code
        """Triton's own, so that a client learns whether to come back."""


class TritonPythonModel:
    """The face that Triton's Python backend asks for: image_bytes [N, 1] to mask_png [N, 1], both of bytes."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the parameters of config.pbtxt; `args["model_config"]` is that file as JSON."""
        # Exists inside Triton and nowhere else; the functions below do without.
        import triton_python_backend_utils  # type: ignore[import-not-found, unused-ignore] # noqa: PLC0415

        self.triton: Any = triton_python_backend_utils
        given = json.loads(args["model_config"])["parameters"]
        self.tensor_model = given["tensor_model"]["string_value"]
        self.max_bytes = int(given["max_image_bytes"]["string_value"])
        self.max_pixels = int(given["max_image_pixels"]["string_value"])
        self.palette = palette(json.loads(given["classes"]["string_value"]))

    async def execute(self, requests: list[Any]) -> list[Any]:
        """One response a request, in their order: masks, or that request's own error."""
        return list(await asyncio.gather(*map(self._respond, requests)))

    async def _respond(self, request: Any) -> Any:
        triton = self.triton
        try:
            files = triton.get_input_tensor_by_name(request, "image_bytes").as_numpy()
            pngs = [await self._mask_png(file) for file in files.reshape(-1)]
        except RefusedError as refused:
            return triton.InferenceResponse(error=triton.TritonError(str(refused), triton.TritonError.INVALID_ARG))
        except TensorModelError as failed:
            return triton.InferenceResponse(error=triton.TritonError(str(failed), failed.code))
        except Exception as error:  # memory, most likely: not a reason to fail the requests beside it
            return triton.InferenceResponse(error=triton.TritonError(f"{type(error).__name__}: {error}"))
        answer = np.array(pngs, dtype=np.object_).reshape(files.shape)
        return triton.InferenceResponse(output_tensors=[triton.Tensor("mask_png", answer)])

    async def _mask_png(self, file: bytes) -> bytes:
        # Pillow lets other threads run while it decodes and encodes: requests need not wait for each other.
        image_HW3 = await asyncio.to_thread(decode, file, self.max_bytes, self.max_pixels)
        mask_HW = await self._segment(image_HW3)
        return await asyncio.to_thread(mask_png, mask_HW, self.palette)

    async def _segment(self, image_HW3: Pixels) -> Mask:
        """Ask the newest ready version of the tensor model, which groups images of one size into batches by itself."""
        triton = self.triton
        response = await triton.InferenceRequest(
            model_name=self.tensor_model,
            requested_output_names=["mask"],
            inputs=[triton.Tensor("image", image_HW3[None])],
            # A mask that stays on a GPU could not be read here.
            preferred_memory=triton.PreferredMemory(triton.TRITONSERVER_MEMORY_CPU, 0),
        ).async_exec()
        if response.has_error():
            error = response.error()
            raise TensorModelError(f"{self.tensor_model}: {error.message()}", error.code())
        # A copy: the tensor's memory goes back to Triton with the response.
        mask_1HW: Mask = np.array(triton.get_output_tensor_by_name(response, "mask").as_numpy())
        mask_HW: Mask = mask_1HW[0]
        return mask_HW


def decode(data: bytes, max_bytes: int, max_pixels: int) -> Pixels:
    """Decode an image by the table above.

    Args:
        data: The file.
        max_bytes: Most bytes of it.
        max_pixels: Most pixels, width times height.

    Returns:
        uint8 [H, W, 3], RGB, contiguous.

    Raises:
        RefusedError: By one of the rules.
    """
    if len(data) > max_bytes:
        raise RefusedError(
            f"the image has {len(data)} bytes and {max_bytes} are allowed: compress it, or raise max_image_bytes in "
            "config.pbtxt"
        )
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            check(image, data, max_pixels)
            orientation = orientation_of(image)
            image.load()
            return np.ascontiguousarray(upright(rgb(image), orientation), dtype=np.uint8)
    except RefusedError:
        raise
    except UnidentifiedImageError:
        raise RefusedError(f"this is none of {', '.join(FORMATS)}: convert the image to one of them") from None
    except Image.DecompressionBombError:
        raise RefusedError(too_many_pixels("far more", max_pixels)) from None
    except Exception as error:  # whatever Pillow makes of bytes from outside
        raise RefusedError(f"the image is damaged or incomplete ({error}): send the whole file again") from None


def check(image: Image.Image, data: bytes, max_pixels: int) -> None:
    """Hold the header of an opened image against the rules; raises RefusedError."""
    width, height = image.size
    if width * height > max_pixels:
        raise RefusedError(too_many_pixels(f"{width}x{height}", max_pixels))
    # `n_frames` would walk through all pages of a TIFF; this stops after the first. MPO is Pillow's name of a JPEG
    # with more JPEGs behind it, of which the first is the picture.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise RefusedError("the file holds several frames: send the one that is meant as a file of its own")
    tags = getattr(image, "tag_v2", {})
    # A tile is decoded whole, however little of it the picture covers.
    tile_pixels = int(tags.get(TILE_WIDTH, 0)) * int(tags.get(TILE_LENGTH, 0))
    if tile_pixels > max_pixels:
        raise RefusedError(too_many_pixels(f"tiles of {tile_pixels}", max_pixels))
    # Each costs a pass over all pixels, and a file of few bytes may hold many thousands.
    if "progressive" in image.info and data.count(SCAN) > MAX_SCANS:
        raise RefusedError(f"the JPEG has more than {MAX_SCANS} scans: save it again, baseline or progressive")


def too_many_pixels(found: str, max_pixels: int) -> str:
    """The sentence for a client."""
    return (
        f"the image has {found} pixels and {max_pixels} in all are allowed: scale it down, or raise max_image_pixels "
        "in config.pbtxt"
    )


def orientation_of(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 where there is none that can be read."""
    if image.format == "TIFF":
        return 1  # Pillow turns TIFFs by itself while it loads them
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # whatever a broken EXIF makes Pillow raise: the picture is whole
        return 1
    return value if isinstance(value, int) else 1


def rgb(image: Image.Image) -> Image.Image:
    """Any of Pillow's modes to RGB."""
    if image.mode.startswith("I;16"):
        # A grey TIFF of 12 bits has this mode too.
        shift = 4 if getattr(image, "tag_v2", {}).get(BITS) == (12,) else 8
        return Image.fromarray((np.asarray(image) >> shift).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        return Image.fromarray(scaled(np.asarray(image, dtype=np.float64), image.mode)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def scaled(values_HW: npt.NDArray[np.float64], mode: str) -> Pixels:
    """Numbers of a range that the file does not say, to 0..255 by the table above."""
    low, high = float(values_HW.min()), float(values_HW.max())
    if not np.isfinite(high - low):
        raise ValueError("its pixels are not all finite numbers")
    for white in (255.0, 65535.0) if mode == "I" else (1.0, 255.0, 65535.0):
        if low >= 0 and high <= white:
            low, high = 0.0, white
            break
    step = 255.999 / (high - low) if high > low else 0.0
    return ((values_HW - low) * step).astype(np.uint8)


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """The picture as viewers show it."""
    # The image was converted since it was opened; what counts is the orientation that the file said.
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image.info = {"exif": exif.tobytes()}
    return ImageOps.exif_transpose(image)


def palette(classes: list[dict[str, Any]]) -> bytes:
    """The class colours as a PNG palette: 256 times RGB."""
    colors = np.zeros((256, 3), dtype=np.uint8)
    for entry in classes[:256]:
        colors[entry["id"]] = entry["color"]
    return colors.tobytes()


def mask_png(mask_HW: Mask, colors: bytes) -> bytes:
    """A PNG whose pixel values are class ids.

    Up to 256 classes it is indexed, with the class colours as its palette; above, it is grey with 16 bits.

    Args:
        mask_HW: uint8 or uint16 [H, W].
        colors: What `palette` gave.
    """
    image = Image.fromarray(mask_HW)
    if mask_HW.dtype == np.uint8:
        image.putpalette(colors)
    sink = io.BytesIO()
    image.save(sink, format="PNG", compress_level=PNG_LEVEL, compress_type=PNG_STRATEGY)
    return sink.getvalue()
