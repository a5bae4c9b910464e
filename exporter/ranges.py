"""How large the tensors of a graph become, on given images."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from onnxruntime.quantization.qdq_loss_debug import collect_activations, modify_model_output_intermediate_tensors

from exporter.onnx_images import Images
from exporter.probe import Bytes


def large_tensors(graph: Path, images: Sequence[Bytes], bound: float) -> list[str]:
    """The floating-point tensors that hold a value beyond the bound, of either sign, on any of the images.

    Args:
        graph: in fp32.
        images: uint8 [H,W,3]; the tensors of all of them are held in memory at once.
        bound: of the absolute value.
    """
    with tempfile.TemporaryDirectory() as folder:
        observed = Path(folder) / "observed.onnx"
        modify_model_output_intermediate_tensors(graph, observed)
        found = collect_activations(str(observed), Images(images))
    return [name for name, values in found.items() if any(np.abs(value).max(initial=0) > bound for value in values)]
