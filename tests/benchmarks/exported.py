"""Compare a bundle's graphs with PyTorch on the same cores: speed, memory, size and quality (make bench-export).

python -m tests.benchmarks.exported CHECKPOINT [--data DATASET] [--size HxW] [--threads 1 2] [--rounds N]
python -m tests.benchmarks.exported --memory          # 2048x2048 pixels, 150 classes, with and without folded arg-max

CHECKPOINT may also be the name of an encoder: then the network has random weights, and only its speed is meaningful.
Rounds of all candidates alternate, each in its own process. Speed is the median over the rounds.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Size, Tensor, nn

from exporter.bundle import read_manifest
from exporter.export import eager, export
from exporter.graph import write_graph
from exporter.manifest import Precision
from exporter.model_card import artifacts_table
from exporter.probe import Predict, scene
from exporter.runtime import OnnxPredictor
from tests.benchmarks.implementations import peak_memory
from trainer import checkpoint
from trainer.data.readers.layouts import open_dataset
from trainer.models.predictor import MaskPredictor
from trainer.models.segmenter import build_segmenter
from trainer.recipe_file import recipe_from_dict
from trainer.taxonomy import Taxonomy

ROOT = Path(__file__).parents[2]
TORCH_CANDIDATES = ("torch eager", "torch.compile")
WARM_UP = 3
MANY_CLASSES, LARGE = 150, 2048


def main() -> int:
    options = arguments()
    if options.candidate:
        sys.stdout.write(json.dumps(measure(options)))
    elif options.memory:
        sys.stdout.write(compare_memory(options))
    else:
        sys.stdout.write(compare(options))
    return 0


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="?", default="", help="a run's model.safetensors, or an encoder's name")
    parser.add_argument("--data", type=Path, help="data set of the checkpoint: measures quality, and adds int8")
    parser.add_argument("--size", default="360x480", help="height and width of the images, pixels")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0, help="timed seconds per round")
    parser.add_argument(
        "--memory", action="store_true", help="measure only the peak memory of a large image in many classes"
    )
    parser.add_argument("--candidate", help=argparse.SUPPRESS)
    parser.add_argument("--graph", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not (options.checkpoint or options.memory or options.candidate):
        parser.error("give a CHECKPOINT, an encoder's name, or --memory")
    return options


def compare(options: argparse.Namespace) -> str:
    """Measure all candidates at all numbers of threads; return Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(options.checkpoint)
        if not file.is_file():
            file = random_checkpoint(Path(folder) / "random.safetensors", options.checkpoint, options.data)
        bundle = Path(folder) / "bundle"
        skipped: list[str] = []
        precisions: tuple[Precision, ...] = ("fp32", "fp16", "int8") if options.data else ("fp32", "fp16")
        export(file, bundle, precisions=precisions, data=options.data, skipped=skipped.append)
        candidates = dict.fromkeys(TORCH_CANDIDATES, file)
        candidates |= {artifact.file: bundle / artifact.file for artifact in read_manifest(bundle).artifacts}
        rates: dict[tuple[str, int], list[float]] = {}
        for _ in range(options.rounds):
            for threads in options.threads:
                for name, graph in candidates.items():
                    found = run_candidate(name, graph, options.size, threads, options.seconds)
                    rates.setdefault((name, threads), []).append(found["images_per_s"])
        lines = [
            artifacts_table(read_manifest(bundle)),
            "",
            *skipped,
            "",
            *speed_table(rates, list(candidates), options),
        ]
    return "\n".join(lines) + "\n"


def speed_table(
    rates: dict[tuple[str, int], list[float]], candidates: list[str], options: argparse.Namespace
) -> list[str]:
    """Return a table of images/s and of the ratio to the first candidate."""
    head = [f"images/s at {options.size}", *(f"{threads} threads, ratio to eager" for threads in options.threads)]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name in candidates:
        cells = []
        for threads in options.threads:
            rate, eager_rate = median(rates[name, threads]), median(rates[candidates[0], threads])
            cells.append(f"{rate:.2f}, {rate / eager_rate:.2f}x")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def run_candidate(candidate: str, graph: Path, size: str, threads: int, seconds: float) -> dict[str, Any]:
    """Measure one candidate in a new process."""
    command = [sys.executable, "-m", "tests.benchmarks.exported", f"--candidate={candidate}", f"--graph={graph}"]
    command += [f"--size={size}", f"--threads={threads}", f"--seconds={seconds}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stderr[-2000:]}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure images/s and peak memory of one candidate in this process."""
    height, width = map(int, options.size.split("x"))
    image_1HW3 = scene(height, width, seed=0)[None]
    predict = predictor(options.candidate, options.graph, options.threads[0])
    for _ in range(WARM_UP if height < LARGE else 1):
        predict(image_1HW3)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < options.seconds:
        predict(image_1HW3)
        count += 1
    rate = count / (time.perf_counter() - start)
    return {"images_per_s": rate, "peak_bytes": peak_memory(torch.device("cpu"))}


def predictor(candidate: str, file: Path, threads: int) -> Predict:
    """Load a candidate by its name: PyTorch from a checkpoint, onnxruntime from a graph."""
    torch.set_num_threads(threads)
    if candidate not in TORCH_CANDIDATES:
        return OnnxPredictor(file, threads=threads)
    loaded = checkpoint.load(file)
    network = MaskPredictor(loaded.model, long_side=loaded.recipe["inference"]["long_side"]).eval()
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if candidate == "torch.compile":
        network.compile()
    return eager(network)


def random_checkpoint(file: Path, encoder: str, data: Path | None) -> Path:
    """Write a checkpoint of an untrained network, for measurements of speed."""
    recipe = recipe_from_dict(
        {
            "method": "supervised",
            "data": {"root": "none"},
            "model": {"encoder": encoder, "weights": "none"},
            "train": {"steps": 1},
        }
    )
    taxonomy = (
        open_dataset(data).taxonomy
        if data
        else Taxonomy(tuple(map(str, range(21))), tuple((i, i, i) for i in range(21)))
    )
    torch.manual_seed(0)
    model = build_segmenter(recipe.model, len(taxonomy)).eval()
    checkpoint.save(file, model, taxonomy, metrics={}, recipe=recipe, data_fingerprint="none")
    return file


class UnfoldedPredictor(MaskPredictor):
    """Predict without the folded arg-max: all class maps at the size of the image, their softmax and its maximum."""

    def classify(self, maps: Sequence[Tensor], size: Size) -> tuple[Tensor, Tensor]:
        """See `MaskPredictor`."""
        logits_NKHW = self.segmenter.upsample(self.segmenter.head(maps), size)
        confidence_NHW, class_NHW = logits_NKHW.softmax(dim=1).max(dim=1)
        return class_NHW, confidence_NHW


def compare_memory(options: argparse.Namespace) -> str:
    """Measure the peak memory of one large image in many classes; return Markdown."""
    recipe = recipe_from_dict(
        {
            "method": "supervised",
            "data": {"root": "none"},
            "model": {"encoder": "efficientnet_lite0", "weights": "none", "features": 48},
            "train": {"steps": 1},
        }
    )
    segmenter = build_segmenter(recipe.model, MANY_CLASSES).eval()
    networks: dict[str, nn.Module] = {"unfolded": UnfoldedPredictor(segmenter), "folded": MaskPredictor(segmenter)}
    lines = [f"| {LARGE}x{LARGE} pixels, {MANY_CLASSES} classes | peak memory, GiB | s per image |", "|---|---|---|"]
    with tempfile.TemporaryDirectory() as folder:
        for name, network in networks.items():
            graph = Path(folder) / f"{name}.onnx"
            write_graph(network.eval(), graph, multiple=segmenter.size_multiple)
            found = run_candidate(name, graph, f"{LARGE}x{LARGE}", options.threads[-1], options.seconds)
            lines.append(f"| {name} | {found['peak_bytes'] / 2**30:.2f} | {1 / found['images_per_s']:.1f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
