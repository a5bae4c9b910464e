"""The memory of a whole service that is sent 8000x8000 pixels (make bench-large).

python -m tests.benchmarks.large_image [--model BUNDLE] [--side 8000] [--windows]

A real server process with default settings but for the limits of an image; each row is one request to a fresh one, and
its peak of resident memory is what the kernel says (VmHWM). --windows: a network with random weights and 19 classes
that goes by windows of 512 pixels, instead of the starter model; half an hour.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from service.settings import PACKAGE
from tests.contract.conftest import free_port, wait_until_ready

KINDS = {"PNG": {"compress_level": 1}, "JPEG": {"quality": 90}}
ANSWERS = ("image/png", "application/json", "image/jpeg")
WINDOW, CLASSES = 512, 19


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=PACKAGE / "starter", help="a bundle")
    parser.add_argument("--side", type=int, default=8000, help="pixels")
    parser.add_argument("--windows", action="store_true", help="a network that goes by windows")
    options = parser.parse_args()
    sent = {kind: photograph(options.side, kind) for kind in KINDS}
    sys.stdout.write("| sent | asked for | s | scale | peak, MB | before, MB |\n|---|---|---|---|---|---|\n")
    with tempfile.TemporaryDirectory() as folder:
        model = windowed(Path(folder)) if options.windows else options.model
        for kind, data in sent.items():
            for accept in ANSWERS[:1] if options.windows else ANSWERS:
                figures = ask(model, data, accept)
                sys.stdout.write(f"| {kind}, {len(data) / 1e6:.0f} MB | {accept} | {figures} |\n")
                sys.stdout.flush()
    return 0


def photograph(side: int, kind: str) -> bytes:
    """A large picture of a street's colours, soft and a little noisy, as a file."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8))
    image_HW3 = np.array(coarse.resize((side, side), Image.Resampling.BICUBIC))
    image_HW3 ^= rng.integers(0, 2, (1, side, 3), dtype=np.uint8)
    sink = io.BytesIO()
    Image.fromarray(image_HW3).save(sink, kind, **KINDS[kind])
    return sink.getvalue()


def ask(model: Path, data: bytes, accept: str) -> str:
    """One request to a service of its own, as the cells of a row."""
    with tempfile.TemporaryDirectory() as folder, service(model, Path(folder)) as (address, pid):
        before = high_water(pid)
        headers = {"Content-Type": "application/octet-stream", "Accept": accept}
        request = urllib.request.Request(f"{address}/v1/segment", data=data, headers=headers)
        began = time.perf_counter()
        with urllib.request.urlopen(request, timeout=3600) as answer:
            check(answer.read(), accept)
            scale = answer.headers.get("X-Mask-Scale", "1")
        took_s = time.perf_counter() - began
        return f"{took_s:.1f} | {scale} | {high_water(pid) / 1e6:.0f} | {before / 1e6:.0f}"


def check(body: bytes, accept: str) -> None:
    """That the answer is of the image's size; an overlay has its key below."""
    if accept == "application/json":
        found = json.loads(body)
        size = found["width"], found["height"]
    else:
        with Image.open(io.BytesIO(body)) as image:
            size = image.size
    if size[0] != size[1] and not (accept == "image/jpeg" and size[0] < size[1]):
        raise SystemExit(f"an answer of {size}")


@contextmanager
def service(model: Path, data_dir: Path) -> Iterator[tuple[str, int]]:
    """A service on a bundle: its address, and the process."""
    port = free_port()
    words = [sys.executable, "-m", "service", "serve", f"--port={port}", f"--data-dir={data_dir}", f"--model={model}"]
    limits = {"MASKLOOP_MAX_IMAGE_PIXELS": str(178_000_000), "MASKLOOP_MAX_IMAGE_BYTES": str(10**9)}
    process = subprocess.Popen(words, env=os.environ | limits)
    try:
        wait_until_ready(f"http://127.0.0.1:{port}", process)
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        process.terminate()
        process.wait(60)


def high_water(pid: int) -> int:
    """The most bytes that a process has held in memory."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def windowed(folder: Path) -> Path:
    """A bundle that goes by windows, with random weights."""
    from exporter.export import export
    from trainer import checkpoint
    from trainer.models.segmenter import build_segmenter
    from trainer.recipe_file import recipe_from_dict
    from trainer.taxonomy import Taxonomy

    recipe = recipe_from_dict(
        {
            "method": "supervised",
            "data": {"root": "none"},
            "model": {"encoder": "efficientnet_lite0", "weights": "none", "features": 48},
            "train": {"steps": 1},
            "inference": {"window": [WINDOW, WINDOW]},
        }
    )
    taxonomy = Taxonomy(tuple(map(str, range(CLASSES))), tuple((i, i, i) for i in range(CLASSES)))
    file = folder / "model.safetensors"
    model = build_segmenter(recipe.model, CLASSES).eval()
    checkpoint.save(file, model, taxonomy, metrics={}, recipe=recipe, data_fingerprint="none")
    export(file, folder / "bundle", with_checkpoint=False)
    return folder / "bundle"


if __name__ == "__main__":
    sys.exit(main())
