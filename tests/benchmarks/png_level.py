"""How a mask is best written as a PNG, and what the other answers cost: milliseconds and bytes, on one core.

python -m tests.benchmarks.png_level [--rounds N] [IMAGE ...]

Masks are those that the starter model gives for the images, at 640x480 and 2048x2048; without images, those of a
photograph-like scene of scikit-image. Packages that compress faster than Pillow's zlib-ng are shown where they are
installed (`pip install isal zlib-ng`), behind a writer of PNGs that does nothing else. Times are CPU time, the median
of all rounds.
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

from service.segmentation.inference.engine import Engine, Mask, Prediction
from service.segmentation.output.class_table import ClassTable
from service.segmentation.output.description import OutputOptions, describe
from service.segmentation.output.overlay import overlay_jpeg
from service.segmentation.output.png import confidence_png, mask_png, palette

STARTER = Path(__file__).parents[2] / "service/starter/model.onnx"
SIZES = ((640, 480), (2048, 2048))
CLASS_TABLE = ClassTable(
    tuple(f"class {i}" for i in range(32)), tuple((7 * i, 200 - 5 * i, 90) for i in range(32)), 255
)
# zlib's strategies, as Pillow and zlib number them.
STRATEGIES = {"default": 0, "filtered": 1, "Huffman": 2, "RLE": 3}
Compress = Callable[[bytes], bytes]


def main() -> None:
    """Measure every way of writing, for each image and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    engine = Engine(STARTER, threads=1)
    for name, image in photographs(options.images):
        for size in SIZES:
            image_HW3 = np.asarray(image.resize(size))
            prediction = engine.run(image_HW3)
            say(f"\n{name} at {size[0]}x{size[1]}: {len(np.unique(prediction.mask_HW))} classes")
            for how, write in {**pngs(prediction.mask_HW), **answers(image_HW3, prediction)}.items():
                say(f"  {how:<40} {milliseconds(write, options.rounds):9.2f} ms {len(write()):>10} bytes")


def photographs(paths: list[Path]) -> list[tuple[str, Image.Image]]:
    """What was named, or photographs that scikit-image ships."""
    if paths:
        return [(path.name, Image.open(path).convert("RGB")) for path in paths]
    data: Any = import_module("skimage.data")
    return [(name, Image.fromarray(getattr(data, name)())) for name in ("astronaut", "coffee")]


def pngs(mask_HW: Mask) -> dict[str, Callable[[], bytes]]:
    """The ways to write a mask as a PNG; the first is the service's."""
    ways: dict[str, Callable[[], bytes]] = {"the service's PNG": lambda: mask_png(mask_HW, CLASS_TABLE)}
    for level in (0, 1, 2, 3, 6, 9):
        ways[f"Pillow, level {level}"] = lambda level=level: by_pillow(mask_HW, level, 0)  # type: ignore[misc]
    for strategy in ("RLE", "Huffman"):
        number = STRATEGIES[strategy]
        ways[f"Pillow, level 1, {strategy}"] = lambda number=number: by_pillow(mask_HW, 1, number)  # type: ignore[misc]
    for how, compress in compressors().items():
        for up in (False, True):
            title = f"bare writer, {'up filter, ' if up else ''}{how}"
            ways[title] = lambda compress=compress, up=up: bare(mask_HW, compress, up=up)  # type: ignore[misc]
    return ways


def answers(image_HW3: npt.NDArray[np.uint8], prediction: Prediction) -> dict[str, Callable[[], bytes]]:
    """The other forms of an answer."""

    def numbers(options: OutputOptions) -> bytes:
        return describe(prediction, CLASS_TABLE, model="any", options=options).to_json()

    return {
        "JSON, RLE": lambda: numbers(OutputOptions()),
        "JSON, RLE and polygons": lambda: numbers(OutputOptions(polygons=True)),
        "JSON, PNG": lambda: numbers(OutputOptions(masks="png")),
        "confidence as a PNG": lambda: confidence_png(prediction.confidence_HW),
        "overlay": lambda: overlay_jpeg(image_HW3, prediction.mask_HW, CLASS_TABLE, legend=False),
        "overlay with its key": lambda: overlay_jpeg(image_HW3, prediction.mask_HW, CLASS_TABLE),
    }


def compressors() -> dict[str, Compress]:
    """Makers of zlib streams: Python's, and those of packages that are installed."""
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
    """By zlib or by something that has its face, at level 1."""
    stream = module.compressobj(1, zlib.DEFLATED, 15, 9, strategy)
    packed: bytes = stream.compress(rows) + stream.flush()
    return packed


def by_pillow(mask_HW: Mask, level: int, strategy: int) -> bytes:
    """An indexed PNG."""
    image, sink = Image.fromarray(mask_HW), io.BytesIO()
    image.putpalette(palette(CLASS_TABLE).tobytes())
    image.save(sink, "PNG", compress_level=level, compress_type=strategy)
    return sink.getvalue()


def bare(mask_HW: Mask, compress: Compress, *, up: bool) -> bytes:
    """An indexed PNG of 8 bits, its rows as they are or as what changes from one to the next."""
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


def milliseconds(write: Callable[[], bytes], rounds: int) -> float:
    """CPU time of this thread; what else the machine does counts little."""
    taken = []
    write()
    for _ in range(rounds):
        began = time.thread_time()
        write()
        taken.append(time.thread_time() - began)
    return median(taken) * 1000


def say(line: str) -> None:
    """A line of the result."""
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
