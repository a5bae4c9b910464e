"""Images of odd sizes through a bundle and through PyTorch (make sizes): the same masks, for every kind of encoder.

python -m tests.benchmarks.sizes [--encoders NAME ...] [--most-pixels N]

Networks at their full size, each exported, verified and asked for every size alone and in a batch of five. The weights
are random but for EfficientNet-Lite0's. A ViT that sees 2048x2048 pixels as they are attends to 21316 tokens: the last
rows take minutes each, and the graph is the one with fused attention there, as in the service.
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
"""The `model` table of a recipe, and the long side to which the graph brings images (0: as they are)."""
SIZES = ((1, 1), (37, 1000), (517, 389), (2048, 2048))
"""Height and width, pixels."""
COUNTS = (1, 5)
MASK_AGREEMENT, CONFIDENCE_STEPS = 0.9999, 1
"""The tolerance: least fraction of equal pixels, and largest difference of a confidence in steps of 1/255."""
MOST_SCORES = 4 * 2**30
"""Bytes of attention's scores beyond which only the graph that never holds them is asked."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A graph beside PyTorch on one batch."""

    mask_agreement: float
    confidence_steps: int

    @property
    def is_equal(self) -> bool:
        """To the tolerance."""
        return self.mask_agreement >= MASK_AGREEMENT and self.confidence_steps <= CONFIDENCE_STEPS


def images_of(count: int, height: int, width: int) -> np.ndarray:
    """Scenes, uint8 [count, height, width, 3]."""
    return np.stack([scene(height, width, seed) for seed in range(70, 70 + count)])


def compare(expected: tuple[np.ndarray, np.ndarray], found: tuple[np.ndarray, np.ndarray]) -> Compared:
    """Mask and confidence [N, H, W] of two predictors."""
    (mask, confidence), (other_mask, other_confidence) = expected, found
    assert mask.shape == other_mask.shape == confidence.shape == other_confidence.shape
    steps = np.abs(confidence.astype(np.int16) - other_confidence).max()
    return Compared(float(np.mean(mask == other_mask)), int(steps))


def graph_for(manifest: Manifest, height: int, width: int, count: int = 1, heads: int = 6) -> str:
    """The plain graph, or the fused one where the plain one's scores would not fit."""
    fused = [artifact.file for artifact in manifest.artifacts if artifact.fused_attention]
    scale = manifest.inference.long_side / max(height, width) if manifest.inference.long_side else 1
    tokens = height * width * scale**2 / manifest.inference.multiple**2
    return fused[0] if fused and 4 * heads * count * tokens**2 > MOST_SCORES else "model.onnx"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", nargs="+", choices=ENCODERS, default=list(ENCODERS), metavar="NAME")
    parser.add_argument("--most-pixels", type=int, default=5 * 2048 * 2048, help="of a batch; larger ones are left out")
    options = parser.parse_args()
    sys.stdout.write("| encoder | graph | images | masks equal | confidence, steps | PyTorch s | onnxruntime s | |\n")
    sys.stdout.write("|---" * 8 + "|\n")
    fine = True
    with tempfile.TemporaryDirectory() as folder:
        for name in options.encoders:
            for row, is_equal in rows(name, Path(folder), options.most_pixels):
                sys.stdout.write(f"| {name} | {' | '.join(row)} |\n")
                sys.stdout.flush()
                fine &= is_equal
    return 0 if fine else 1


def rows(name: str, folder: Path, most_pixels: int) -> Iterator[tuple[list[str], bool]]:
    """Export, verify, and one row for each size and count."""
    model, long_side = ENCODERS[name]
    file, bundle = folder / f"{name.replace('/', ' ')}.safetensors", folder / name.replace("/", " ")
    export(make_checkpoint(file, model, long_side=long_side), bundle, with_checkpoint=False)
    manifest = verify(bundle).manifest
    network = eager(predictor_of(file))
    for height, width in SIZES:
        for count in COUNTS:
            if count * height * width > most_pixels:
                continue
            batch_NHW3 = images_of(count, height, width)
            graph = graph_for(manifest, height, width, count)
            expected, torch_s = timed(network, batch_NHW3)
            found, onnx_s = timed(OnnxPredictor(bundle / graph), batch_NHW3)
            seen = compare(expected, found)
            verdict = "" if seen.is_equal else "**beyond the tolerance**"
            size = f"{count} of {height}x{width}"
            figures = [f"{100 * seen.mask_agreement:.4f} %", str(seen.confidence_steps)]
            times = [f"{torch_s:.2f}", f"{onnx_s:.2f}"]
            yield [f"`{graph}`", size, *figures, *times, verdict], seen.is_equal


def timed(predict: Predict, batch_NHW3: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], float]:
    """An answer and the seconds that it took, the first time."""
    began = time.perf_counter()
    answer = predict(batch_NHW3)
    return answer, time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
