"""What every side does with a photograph, so that they differ in how they serve and in nothing else.

Each peer runs in an environment of its own, which has numpy, Pillow and onnxruntime beside its framework.
"""

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from PIL import Image

Pixels = npt.NDArray[np.uint8]

# As our service: as fast as no compression, and 60 times smaller.
PNG_LEVEL = 1


def bundle() -> Path:
    """The folder with the graph that all sides run."""
    return Path(os.environ["BENCH_BUNDLE"])


def cores() -> int:
    """How many cores a side may use."""
    return int(os.environ["BENCH_CORES"])


def open_session(threads: int | None) -> Any:
    """The graph in onnxruntime; None leaves the number of threads to it, which takes one for each core."""
    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(bundle() / "model.onnx", options, providers=["CPUExecutionProvider"])


def decode(data: bytes) -> Pixels:
    """A JPEG as uint8 [1, H, W, 3], RGB."""
    return pixels(Image.open(io.BytesIO(data)))


def pixels(image: Image.Image) -> Pixels:
    """An image that Pillow has opened, the same way."""
    return np.asarray(image.convert("RGB"))[None]


def infer(session: Any, image_1HW3: Pixels) -> Pixels:
    """The mask of one image, uint8 [H, W]."""
    mask_1HW, _ = session.run(["mask", "confidence"], {"image": image_1HW3})
    mask_HW: Pixels = mask_1HW[0]
    return mask_HW


def encode(mask_HW: Pixels, palette: bytes) -> bytes:
    """A mask as an indexed PNG."""
    image, sink = Image.fromarray(mask_HW), io.BytesIO()
    image.putpalette(palette)
    image.save(sink, "PNG", compress_level=PNG_LEVEL)
    return sink.getvalue()


def read_palette() -> bytes:
    """The classes' colours."""
    classes = json.loads((bundle() / "manifest.json").read_text())["classes"]
    return bytes(value for entry in classes for value in entry["color"]).ljust(768, b"\0")
