"""Decoding, inference and encoding, which all peers share, so that they differ only in how they serve.

Each peer runs in its own virtual environment with numpy, Pillow, onnxruntime and its framework.
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

# As in our service: as fast as no compression, and 60 times smaller.
PNG_LEVEL = 1


def bundle() -> Path:
    """Folder with the graph that all servers run."""
    return Path(os.environ["BENCH_BUNDLE"])


def cores() -> int:
    """Number of cores that a server may use."""
    return int(os.environ["BENCH_CORES"])


def open_session(threads: int | None) -> Any:
    """Open the graph with onnxruntime; None: its default number of threads, one per core."""
    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(bundle() / "model.onnx", options, providers=["CPUExecutionProvider"])


def decode(data: bytes) -> Pixels:
    """Decode a JPEG to RGB, uint8 [1, H, W, 3]."""
    return pixels(Image.open(io.BytesIO(data)))


def pixels(image: Image.Image) -> Pixels:
    """Convert an opened image to RGB, uint8 [1, H, W, 3]."""
    return np.asarray(image.convert("RGB"))[None]


def infer(session: Any, image_1HW3: Pixels) -> Pixels:
    """Return the mask of one image, uint8 [H, W]."""
    mask_1HW, _ = session.run(["mask", "confidence"], {"image": image_1HW3})
    mask_HW: Pixels = mask_1HW[0]
    return mask_HW


def encode(mask_HW: Pixels, palette: bytes) -> bytes:
    """Encode a mask as an indexed PNG."""
    image, sink = Image.fromarray(mask_HW), io.BytesIO()
    image.putpalette(palette)
    image.save(sink, "PNG", compress_level=PNG_LEVEL)
    return sink.getvalue()


def read_palette() -> bytes:
    """Return the colours of the classes as a PNG palette."""
    classes = json.loads((bundle() / "manifest.json").read_text())["classes"]
    return bytes(value for entry in classes for value in entry["color"]).ljust(768, b"\0")
