"""Measure the memory of a service that receives an image of 8000x8000 pixels (make bench-large).

python -m tests.benchmarks.large_image [--model BUNDLE] [--side 8000] [--windows]

Starts the service with default settings except for the image limits. Each row is one request to a new process; its peak
is the kernel's VmHWM. --windows: instead of the starter model, a network with random weights and 19 classes that runs
in sliding windows of 512 pixels; takes half an hour.
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

FORMATS = {"PNG": {"compress_level": 1}, "JPEG": {"quality": 90}}
RESPONSE_TYPES = ("image/png", "application/json", "image/jpeg")
WINDOW, CLASSES = 512, 19


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=PACKAGE / "starter", help="a bundle")
    parser.add_argument("--side", type=int, default=8000, help="width and height in pixels")
    parser.add_argument("--windows", action="store_true", help="use a network with sliding windows")
    options = parser.parse_args()
    sent = {format_: image_file(options.side, format_) for format_ in FORMATS}
    sys.stdout.write("| image | response | s | scale | peak, MB | before, MB |\n|---|---|---|---|---|---|\n")
    with tempfile.TemporaryDirectory() as folder:
        model = export_windowed_bundle(Path(folder)) if options.windows else options.model
        for format_, data in sent.items():
            for accept in RESPONSE_TYPES[:1] if options.windows else RESPONSE_TYPES:
                figures = measure_request(model, data, accept)
                sys.stdout.write(f"| {format_}, {len(data) / 1e6:.0f} MB | {accept} | {figures} |\n")
                sys.stdout.flush()
    return 0


def image_file(side: int, format_: str) -> bytes:
    """Encode a large square image of smooth colours with a little noise."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8))
    image_HW3 = np.array(coarse.resize((side, side), Image.Resampling.BICUBIC))
    image_HW3 ^= rng.integers(0, 2, (1, side, 3), dtype=np.uint8)
    sink = io.BytesIO()
    Image.fromarray(image_HW3).save(sink, format_, **FORMATS[format_])
    return sink.getvalue()


def measure_request(model: Path, data: bytes, accept: str) -> str:
    """Send one request to a new service; return the cells of a table row."""
    with tempfile.TemporaryDirectory() as folder, service(model, Path(folder)) as (address, pid):
        before = peak_rss(pid)
        headers = {"Content-Type": "application/octet-stream", "Accept": accept}
        request = urllib.request.Request(f"{address}/v1/segment", data=data, headers=headers)
        start = time.perf_counter()
        with urllib.request.urlopen(request, timeout=3600) as response:
            check_size(response.read(), accept)
            scale = response.headers.get("X-Mask-Scale", "1")
        took_s = time.perf_counter() - start
        return f"{took_s:.1f} | {scale} | {peak_rss(pid) / 1e6:.0f} | {before / 1e6:.0f}"


def check_size(body: bytes, accept: str) -> None:
    """Check that the response is square like the image; an overlay may have its legend below."""
    if accept == "application/json":
        found = json.loads(body)
        size = found["width"], found["height"]
    else:
        with Image.open(io.BytesIO(body)) as image:
            size = image.size
    if size[0] != size[1] and not (accept == "image/jpeg" and size[0] < size[1]):
        raise SystemExit(f"the response has {size[0]}x{size[1]} pixels; a square was expected")


@contextmanager
def service(model: Path, data_dir: Path) -> Iterator[tuple[str, int]]:
    """Start a service on a bundle; yield its address and process id."""
    port = free_port()
    command = [sys.executable, "-m", "service", "serve", f"--port={port}", f"--data-dir={data_dir}", f"--model={model}"]
    limits = {"MASKLOOP_MAX_IMAGE_PIXELS": str(178_000_000), "MASKLOOP_MAX_IMAGE_BYTES": str(10**9)}
    process = subprocess.Popen(command, env=os.environ | limits)
    try:
        wait_until_ready(f"http://127.0.0.1:{port}", process)
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        process.terminate()
        process.wait(60)


def peak_rss(pid: int) -> int:
    """Return the peak resident memory of a process in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def export_windowed_bundle(folder: Path) -> Path:
    """Export a bundle with sliding windows and random weights."""
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
