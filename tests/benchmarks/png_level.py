"""Compare encoders to encode a mask as a PNG, and the other response formats: CPU milliseconds and bytes.

python -m tests.benchmarks.png_level [--rounds N] [IMAGE ...]

The masks are the starter model's for the images, at 640x480 and 2048x2048; default: two of scikit-image's photographs.
Faster compressors than Pillow's zlib-ng are included if they are installed (`pip install isal zlib-ng`), with a minimal
PNG writer. Times are CPU time, the median of all rounds.
"""

import argparse
import io
import struct
import sys
import time
import zlib
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from service.segmentation.inference.engine import Engine
from service.segmentation.inference.predictor import Mask, Prediction
from service.segmentation.output.class_table import ClassTable
from service.segmentation.output.description import OutputOptions, describe
from service.segmentation.output.overlay import overlay_jpeg
from service.segmentation.output.png import confidence_png, mask_png, palette

STARTER = Path(__file__).parents[2] / "service/starter/model.onnx"
SIZES = ((640, 480), (2048, 2048))
CLASS_TABLE = ClassTable(
    tuple(f"class {i}" for i in range(32)), tuple((7 * i, 200 - 5 * i, 90) for i in range(32)), 255
)
# Numbers of zlib's strategies.
STRATEGIES = {"default": 0, "filtered": 1, "Huffman": 2, "RLE": 3}
Compress = Callable[[bytes], bytes]


def main() -> None:
    """Measure every encoder for each image and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    engine = Engine(STARTER, threads=1)
    for name, image in images_to_encode(options.images):
        for size in SIZES:
            image_HW3 = np.asarray(image.resize(size))
            prediction = engine.run(image_HW3)
            print_line(f"\n{name} at {size[0]}x{size[1]}: {len(np.unique(prediction.mask_HW))} classes")
            encoders = png_encoders(prediction.mask_HW) | response_encoders(image_HW3, prediction)
            for title, encode in encoders.items():
                print_line(f"  {title:<40} {milliseconds(encode, options.rounds):9.2f} ms {len(encode()):>10} bytes")


def images_to_encode(paths: list[Path]) -> list[tuple[str, Image.Image]]:
    """Open the given images, or two photographs of scikit-image."""
    if paths:
        return [(path.name, Image.open(path).convert("RGB")) for path in paths]
    data: Any = import_module("skimage.data")
    return [(name, Image.fromarray(getattr(data, name)())) for name in ("astronaut", "coffee")]


def png_encoders(mask_HW: Mask) -> dict[str, Callable[[], bytes]]:
    """Return the ways to encode a mask as a PNG; the first is the service's."""
    encoders: dict[str, Callable[[], bytes]] = {"the service's PNG": lambda: mask_png(mask_HW, CLASS_TABLE)}
    for level in (0, 1, 2, 3, 6, 9):
        encoders[f"Pillow, level {level}"] = lambda level=level: pillow_png(mask_HW, level, 0)  # type: ignore[misc]
    for strategy in ("RLE", "Huffman"):
        number = STRATEGIES[strategy]
        encoders[f"Pillow, level 1, {strategy}"] = lambda number=number: pillow_png(mask_HW, 1, number)  # type: ignore[misc]
    for compressor, compress in compressors().items():
        for up in (False, True):
            title = f"minimal writer, {'up filter, ' if up else ''}{compressor}"
            encoders[title] = lambda compress=compress, up=up: minimal_png(mask_HW, compress, up=up)  # type: ignore[misc]
    return encoders


def response_encoders(image_HW3: npt.NDArray[np.uint8], prediction: Prediction) -> dict[str, Callable[[], bytes]]:
    """Return the encoders of the other response formats."""

    def as_json(options: OutputOptions) -> bytes:
        return describe(prediction, CLASS_TABLE, model="any", options=options).to_json()

    return {
        "JSON, RLE": lambda: as_json(OutputOptions()),
        "JSON, RLE and polygons": lambda: as_json(OutputOptions(polygons=True)),
        "JSON, PNG": lambda: as_json(OutputOptions(masks="png")),
        "confidence as a PNG": lambda: confidence_png(prediction.confidence_HW),
        "overlay": lambda: overlay_jpeg(image_HW3, prediction.mask_HW, CLASS_TABLE, legend=False),
        "overlay with legend": lambda: overlay_jpeg(image_HW3, prediction.mask_HW, CLASS_TABLE),
    }


def compressors() -> dict[str, Compress]:
    """Return the zlib compressors: Python's and those of installed packages."""
    found: dict[str, Compress] = {"zlib, RLE": lambda rows: deflated(zlib, rows, STRATEGIES["RLE"])}
    if find_spec("zlib_ng"):
        fast = import_module("zlib_ng.zlib_ng")
        found["zlib-ng"] = lambda rows: deflated(fast, rows, 0)
        found["zlib-ng, RLE"] = lambda rows: deflated(fast, rows, STRATEGIES["RLE"])
    if find_spec("isal"):
        isal = import_module("isal.isal_zlib")
        found["ISA-L"] = lambda rows: isal.compress(rows, 1)
    return found


def deflated(module: Any, rows: bytes, strategy: int) -> bytes:
    """Compress at level 1 with zlib or a module with the same interface."""
    stream = module.compressobj(1, zlib.DEFLATED, 15, 9, strategy)
    packed: bytes = stream.compress(rows) + stream.flush()
    return packed


def pillow_png(mask_HW: Mask, level: int, strategy: int) -> bytes:
    """Encode an indexed PNG with Pillow."""
    image, sink = Image.fromarray(mask_HW), io.BytesIO()
    image.putpalette(palette(CLASS_TABLE).tobytes())
    image.save(sink, "PNG", compress_level=level, compress_type=strategy)
    return sink.getvalue()


def minimal_png(mask_HW: Mask, compress: Compress, *, up: bool) -> bytes:
    """Encode an 8-bit indexed PNG; `up` applies PNG's Up filter (difference to the row above) from the second row."""
    height, width = mask_HW.shape
    rows = np.zeros((height, width + 1), dtype=np.uint8)
    rows[:, 1:] = mask_HW
    if up:
        rows[1:, 0] = 2
        rows[1:, 1:] -= mask_HW[:-1].astype(np.uint8)
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0),
        b"PLTE": palette(CLASS_TABLE).tobytes(),
        b"IDAT": compress(rows.tobytes()),
        b"IEND": b"",
    }
    written = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))
        for kind, data in chunks.items()
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(written)


def milliseconds(encode: Callable[[], bytes], rounds: int) -> float:
    """Return the median CPU time of this thread in milliseconds, which other load on the machine affects little."""
    taken = []
    encode()
    for _ in range(rounds):
        start = time.thread_time()
        encode()
        taken.append(time.thread_time() - start)
    return median(taken) * 1000


def print_line(line: str) -> None:
    """Write a line of the result to stdout."""
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
