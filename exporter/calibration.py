"""Run images through a graph for onnxruntime's quantisation tools, and find tensors with large values."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from onnxruntime.quantization import CalibrationDataReader
from onnxruntime.quantization.qdq_loss_debug import collect_activations, modify_model_output_intermediate_tensors

from exporter.probe import Bytes


class CalibrationImages(CalibrationDataReader):  # type: ignore[misc] # onnxruntime has no types
    """Feeds images one at a time."""

    def __init__(self, images: Sequence[Bytes]) -> None:
        self._images = iter(images)

    def get_next(self) -> dict[str, Bytes] | None:
        """The next input, uint8 [1,H,W,3]; None at the end."""
        image_HW3 = next(self._images, None)
        return None if image_HW3 is None else {"image": image_HW3[None]}


def large_tensors(graph: Path, images: Sequence[Bytes], limit: float) -> list[str]:
    """Names of an fp32 graph's tensors with an absolute value above `limit` on any of the images, uint8 [H,W,3].

    Holds all tensors of all images in memory.
    """
    with tempfile.TemporaryDirectory() as folder:
        observed = Path(folder) / "observed.onnx"
        modify_model_output_intermediate_tensors(graph, observed)
        found = collect_activations(str(observed), CalibrationImages(images))
    return [name for name, values in found.items() if any(np.abs(value).max(initial=0) > limit for value in values)]
