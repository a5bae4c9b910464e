"""Measure the memory of one inference by graph and image size: the constants of inference/memory_budget.py.

python -m tests.benchmarks.graph_memory [--megapixels 1 4 16] [--threads N] [GRAPH...]

Default graphs: the starter model; convolutional networks of 2, 11 and 150 classes at 512 pixels; and a ViT-S at 518
pixels and at native size, with plain and fused attention. Weights are random. Every figure comes from its own process
with the service's heap settings: the peak of two inferences of one size (the first allocates per tensor, the second in
one block) minus the memory of the process before.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import onnx
import torch

from exporter.attention import fuse_attention
from exporter.graph import save, write_graph
from exporter.probe import scene
from service.allocator import configure_malloc, trim_heap
from service.segmentation.inference.engine import Engine
from service.settings import PACKAGE
from trainer.models.predictor import MaskPredictor
from trainer.models.segmenter import build_segmenter
from trainer.recipe_file import recipe_from_dict

ROOT = Path(__file__).parents[2]
MEGAPIXELS = (1.0, 2.0, 4.0, 9.0, 16.0)
CONVNET, VIT = {"encoder": "efficientnet_lite0", "features": 48}, {"encoder": "vit_small_patch14_dinov2"}
NATIVE_MEGAPIXELS = 2.1
"""Largest image for a network at native size; at 4 megapixels, plain attention would need 20 GB."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("graphs", nargs="*", type=Path, help="model.onnx of bundles")
    parser.add_argument("--megapixels", type=float, nargs="+", default=list(MEGAPIXELS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--size", nargs=2, type=int, metavar=("HEIGHT", "WIDTH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.size:
        sys.stdout.write(json.dumps(measure(options.graphs[0], *options.size, threads=options.threads)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        graphs = {str(graph): graph for graph in options.graphs} or default_graphs(Path(folder))
        sys.stdout.write(table(graphs, options))
    return 0


def default_graphs(folder: Path) -> dict[str, Path]:
    """Write the default graphs; return their files by name."""
    graphs = {"starter": PACKAGE / "starter" / "model.onnx"}
    for classes in (2, 11, 150):
        graphs[f"Lite0, {classes} classes, 512"] = write_random_network(folder, CONVNET, classes, 512)
    graphs["Lite0, 11 classes, native"] = write_random_network(folder, CONVNET, 11, 0)
    for long_side in (518, 0):
        plain = write_random_network(folder, VIT, 21, long_side)
        fused, _ = fuse_attention(onnx.load(plain))
        file = plain.with_suffix(".fused.onnx")
        save(fused, file)
        size = str(long_side or "native")
        graphs |= {f"ViT-S, 21 classes, {size}": plain, f"ViT-S fused, 21 classes, {size}": file}
    return graphs


def write_random_network(folder: Path, model: dict[str, Any], classes: int, long_side: int) -> Path:
    """Export a network with random weights."""
    recipe = recipe_from_dict(
        {
            "method": "supervised",
            "data": {"root": "none"},
            "model": model | {"weights": "none"},
            "train": {"steps": 1},
        }
    )
    torch.manual_seed(0)
    predictor = MaskPredictor(build_segmenter(recipe.model, classes), long_side).eval()
    file = folder / f"{model['encoder']}-{classes}-{long_side}.onnx"
    write_graph(predictor, file, multiple=predictor.segmenter.size_multiple)
    return file


def table(graphs: dict[str, Path], options: argparse.Namespace) -> str:
    """Measure all graphs at all sizes; return Markdown."""
    head = ["MB above the loaded graph (bytes per pixel)", *(f"{size:g} MP" for size in options.megapixels)]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, graph in graphs.items():
        cells = [measure_in_process(name, graph, size, options.threads) for size in options.megapixels]
        lines.append(f"| {name} | {' | '.join(cells)} |")
        sys.stderr.write(lines[-1] + "\n")
    return "\n".join(lines) + "\n"


def measure_in_process(name: str, graph: Path, megapixels: float, threads: int) -> str:
    """Measure one graph at one size in a new process; return the text of a table cell."""
    if name.endswith("native") and megapixels > NATIVE_MEGAPIXELS:
        return "-"
    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    width = round(height * 4 / 3)
    command = [sys.executable, "-m", "tests.benchmarks.graph_memory", str(graph), f"--threads={threads}"]
    command += ["--size", str(height), str(width)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        return f"exit code {done.returncode}"
    peak = json.loads(done.stdout.splitlines()[-1])["peak_bytes"]
    return f"{peak / 1e6:.0f} ({peak / (height * width):.0f})"


def measure(graph: Path, height: int, width: int, *, threads: int) -> dict[str, int]:
    """Return the peak memory of the first two inferences of a size in this process, above the memory before."""
    configure_malloc()
    engine = Engine(graph, threads=threads, device="cpu")
    engine.run(scene(480, 640, seed=0))
    image_HW3 = scene(height, width, seed=1)
    trim_heap()
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    before = _memory("VmRSS")
    for _ in range(2):
        engine.run(image_HW3)
    return {"peak_bytes": _memory("VmHWM") - before}


def _memory(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


if __name__ == "__main__":
    sys.exit(main())
