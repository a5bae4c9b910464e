"""Build one encoder, export it, and compare graph and PyTorch."""

# N images, H W pixels

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import timm
import torch

from exporter.attention import fuse_attention
from exporter.export import eager
from exporter.graph import save, write_graph
from exporter.probe import Predict, scene
from exporter.runtime import OnnxPredictor
from tests.exporter.conftest import spread_classes
from trainer.config import Model
from trainer.models.encoders.encoder import EncoderError
from trainer.models.predictor import MaskPredictor
from trainer.models.segmenter import Segmenter, build_segmenter

MAX_MILLIONS = 400
"""Parameters above which a network is not built here: it needs more memory than a small machine has."""
TOO_LARGE = "not tried: too large"
CLASSES = 5
SIZES = ((1, 96, 128), (2, 75, 101), (1, 33, 200), (1, 161, 97), (1, 9, 9))
"""Number, height and width of the images, in pixels."""
PERTURBATION = 0.02
"""Standard deviation of the noise on all weights: timm initializes many with zeros, which would hide differences."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What one network does, as far as it came."""

    name: str
    millions: float = 0.0
    error: str = ""
    kind: str = ""
    notes: tuple[str, ...] = ()
    multiple: int = 0
    build_s: float = 0.0
    export_s: float = 0.0
    export_error: str = ""
    equal: float = 0.0
    """Fraction of pixels at which the masks of graph and PyTorch are equal, in the worst image."""
    fused: int = 0
    """Blocks with fused attention."""
    fused_equal: float = 0.0


def check(name: str, *, with_export: bool) -> Result:
    """Build a network with perturbed random weights, and export it."""
    torch.set_num_threads(1)
    start = time.process_time()
    with torch.device("meta"):
        millions = sum(p.numel() for p in timm.create_model(name).parameters()) / 1e6
    if millions > MAX_MILLIONS:
        return Result(name=name, millions=millions, error=TOO_LARGE)
    try:
        segmenter = _segmenter(name)
    except EncoderError as error:
        return Result(name=name, millions=millions, error=str(error))
    except Exception as error:  # a fault of ours, which the table should show
        return Result(name=name, millions=millions, error=f"fault: {type(error).__name__}: {error}"[:300])
    encoder, build_s = segmenter.encoder, time.process_time() - start
    fields = {"kind": type(encoder).__name__, "notes": encoder.notes, "multiple": encoder.size_multiple}
    exported = _export(segmenter) if with_export else {}
    return Result(name=name, millions=millions, build_s=build_s, **fields, **exported)  # type: ignore[arg-type]


def _segmenter(name: str) -> Segmenter:
    torch.manual_seed(0)
    model = Model(encoder=name, weights="none", features=16, projections=(16, 16, 16, 16))
    segmenter = build_segmenter(model, CLASSES).eval()
    with torch.no_grad():
        for parameter in segmenter.encoder.parameters():
            parameter.add_(torch.randn_like(parameter) * PERTURBATION)
    return segmenter


def _export(segmenter: Segmenter) -> dict[str, float | str]:
    spread_classes(segmenter)
    predictor, start = MaskPredictor(segmenter).eval(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        graph, fused = Path(folder) / "model.onnx", Path(folder) / "fused.onnx"
        try:
            write_graph(predictor, graph, multiple=segmenter.size_multiple)
            export_s = time.process_time() - start
            equal = agreement(eager(predictor), OnnxPredictor(graph, threads=1))

            model, blocks = fuse_attention(onnx.load(graph))
            save(model, fused)
            fused_equal = agreement(eager(predictor), OnnxPredictor(fused, threads=1)) if blocks else 0.0
        except Exception as error:  # exceptions of torch's and onnxruntime's exporters have no common base class
            return {"export_s": time.process_time() - start, "export_error": f"{type(error).__name__}: {error}"[:300]}
    return {"export_s": export_s, "equal": equal, "fused": blocks, "fused_equal": fused_equal}


def agreement(expected: Predict, found: Predict) -> float:
    """Fraction of equal mask pixels in the worst batch."""
    shares = []
    for count, height, width in SIZES:
        image_NHW3 = np.stack([scene(height, width, seed) for seed in range(70, 70 + count)])
        shares.append(float(np.mean(expected(image_NHW3)[0] == found(image_NHW3)[0])))
    return min(shares)
