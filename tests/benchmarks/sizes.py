"""Compare the masks of bundles and of PyTorch on images of unusual sizes, for every kind of encoder (make sizes).

python -m tests.benchmarks.sizes [--encoders NAME ...] [--max-pixels N]

Exports and verifies networks of full size and runs every image size alone and in a batch of five. The weights are
random except for EfficientNet-Lite0's. A ViT that runs on 2048x2048 pixels at native size has 21316 tokens: the last
rows take minutes each and use the graph with fused attention, as the service does.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from exporter.export import eager, export
from exporter.manifest import Manifest
from exporter.probe import Predict, scene
from exporter.runtime import OnnxPredictor
from exporter.verify import verify
from tests.exporter.conftest import make_checkpoint, predictor_of

ENCODERS: dict[str, tuple[dict[str, Any], int]] = {
    "DINOv2-S/14": ({"encoder": "vit_small_patch14_dinov2", "weights": "none"}, 0),
    "DINOv2-S/14 at 518": ({"encoder": "vit_small_patch14_dinov2", "weights": "none"}, 518),
    "EfficientNet-Lite0": ({"encoder": "efficientnet_lite0", "weights": "package"}, 0),
    "EfficientNet-Lite0 at 480": ({"encoder": "efficientnet_lite0", "weights": "package"}, 480),
    "ResNet-50": ({"encoder": "resnet50", "weights": "none"}, 0),
    "ConvNeXt-T": ({"encoder": "convnext_tiny", "weights": "none"}, 0),
}
"""The `model` table of a recipe, and the long side to which the graph resizes images (0: native size)."""
SIZES = ((1, 1), (37, 1000), (517, 389), (2048, 2048))
"""Height and width, pixels."""
COUNTS = (1, 5)
MASK_AGREEMENT, CONFIDENCE_STEPS = 0.9999, 1
"""Tolerance: smallest fraction of equal pixels, and largest difference of a confidence in steps of 1/255."""
MAX_SCORE_BYTES = 4 * 2**30
"""Bytes of attention scores above which only the fused graph, which does not store them, is run."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Difference between a graph and PyTorch on one batch."""

    mask_agreement: float
    confidence_steps: int

    @property
    def is_equal(self) -> bool:
        """Whether the difference is within the tolerance."""
        return self.mask_agreement >= MASK_AGREEMENT and self.confidence_steps <= CONFIDENCE_STEPS


def images_of(count: int, height: int, width: int) -> np.ndarray:
    """Scenes, uint8 [count, height, width, 3]."""
    return np.stack([scene(height, width, seed) for seed in range(70, 70 + count)])


def compare(expected: tuple[np.ndarray, np.ndarray], found: tuple[np.ndarray, np.ndarray]) -> Comparison:
    """Compare mask and confidence, each [N, H, W], of two predictors."""
    (mask, confidence), (other_mask, other_confidence) = expected, found
    assert mask.shape == other_mask.shape == confidence.shape == other_confidence.shape
    steps = np.abs(confidence.astype(np.int16) - other_confidence).max()
    return Comparison(float(np.mean(mask == other_mask)), int(steps))


def graph_for(manifest: Manifest, height: int, width: int, count: int = 1, heads: int = 6) -> str:
    """Return the plain graph, or the fused one if the plain one's attention scores exceed MAX_SCORE_BYTES."""
    fused = [artifact.file for artifact in manifest.artifacts if artifact.fused_attention]
    scale = manifest.inference.long_side / max(height, width) if manifest.inference.long_side else 1
    tokens = height * width * scale**2 / manifest.inference.multiple**2
    return fused[0] if fused and 4 * heads * count * tokens**2 > MAX_SCORE_BYTES else "model.onnx"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", nargs="+", choices=ENCODERS, default=list(ENCODERS), metavar="NAME")
    parser.add_argument(
        "--max-pixels", type=int, default=5 * 2048 * 2048, help="largest batch; larger ones are skipped"
    )
    options = parser.parse_args()
    sys.stdout.write("| encoder | graph | images | masks equal | confidence, steps | PyTorch s | onnxruntime s | |\n")
    sys.stdout.write("|---" * 8 + "|\n")
    all_equal = True
    with tempfile.TemporaryDirectory() as folder:
        for name in options.encoders:
            for row, is_equal in rows(name, Path(folder), options.max_pixels):
                sys.stdout.write(f"| {name} | {' | '.join(row)} |\n")
                sys.stdout.flush()
                all_equal &= is_equal
    return 0 if all_equal else 1


def rows(name: str, folder: Path, max_pixels: int) -> Iterator[tuple[list[str], bool]]:
    """Export and verify one encoder; yield a table row for each size and batch size, and whether it is equal."""
    model, long_side = ENCODERS[name]
    file, bundle = folder / f"{name.replace('/', ' ')}.safetensors", folder / name.replace("/", " ")
    export(make_checkpoint(file, model, long_side=long_side), bundle, with_checkpoint=False)
    manifest = verify(bundle).manifest
    network = eager(predictor_of(file))
    for height, width in SIZES:
        for count in COUNTS:
            if count * height * width > max_pixels:
                continue
            batch_NHW3 = images_of(count, height, width)
            graph = graph_for(manifest, height, width, count)
            expected, torch_s = timed(network, batch_NHW3)
            found, onnx_s = timed(OnnxPredictor(bundle / graph), batch_NHW3)
            seen = compare(expected, found)
            verdict = "" if seen.is_equal else "**outside the tolerance**"
            size = f"{count} of {height}x{width}"
            figures = [f"{100 * seen.mask_agreement:.4f} %", str(seen.confidence_steps)]
            times = [f"{torch_s:.2f}", f"{onnx_s:.2f}"]
            yield [f"`{graph}`", size, *figures, *times, verdict], seen.is_equal


def timed(predict: Predict, batch_NHW3: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], float]:
    """Return a prediction and the seconds that it took, without a warm-up."""
    start = time.perf_counter()
    mask_NHW, confidence_NHW, _ = predict(batch_NHW3)
    return (mask_NHW, confidence_NHW), time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
