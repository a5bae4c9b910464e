"""The graph of one window, where the run judged by a sliding one: fixed sides, batches of any size.

Who stitches does as the trainer does (trainer/evaluation/sliding.py): windows at the manifest's stride, the last flush
with the border; an image smaller than a window is padded with black at the right and below; each pixel gets the mean of
the probabilities of all windows that see it.
"""

# N windows, K classes, T U the window's height and width

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from exporter.bundle import BundleError, sha256_of
from exporter.graph import OPSET, write_tile_graph
from exporter.manifest import Tile
from exporter.probe import scene
from exporter.runtime import ask_tile
from trainer.models.segmenter import Segmenter, to_float

TILE_GRAPH = "model.tile.onnx"
PROBABILITY_MAX_ABS = 1e-3
"""Largest difference of a probability between PyTorch and onnxruntime."""


class TilePredictor(nn.Module):
    """A window's probabilities, as the trainer's sliding window takes them."""

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        self.segmenter = segmenter

    def forward(self, image_NTU3: Tensor) -> Tensor:
        """Images uint8 [N,T,U,3], RGB, to the softmax over the classes, float32 [N,K,T,U]."""
        probability_NKTU: Tensor = self.segmenter(to_float(image_NTU3)).float().softmax(dim=1)
        return probability_NKTU


def make_tile(
    segmenter: Segmenter, file: Path, *, window: tuple[int, int], stride: float, facts: Mapping[str, str]
) -> Tile:
    """Write the graph and hold it against PyTorch.

    Args:
        segmenter: in eval mode, on the CPU.
        file: where to write.
        window: height and width, multiples of the network's.
        stride: step of the window as a part of its side.
        facts: what the file says of itself.

    Raises:
        BundleError: a probability differs by more than PROBABILITY_MAX_ABS.
    """
    network = TilePredictor(segmenter).eval()
    write_tile_graph(network, file, window=window, facts=facts)
    image_NTU3 = np.stack([scene(*window, seed) for seed in range(3)])
    with torch.inference_mode():
        expected_NKTU = network(torch.from_numpy(image_NTU3)).numpy()
    found_NKTU = ask_tile(file, image_NTU3)
    apart = float(np.abs(found_NKTU - expected_NKTU).max())
    if apart > PROBABILITY_MAX_ABS:
        raise BundleError(
            f"the window's graph gives probabilities that are {apart:.2g} from PyTorch's, and {PROBABILITY_MAX_ABS} is "
            "allowed; no bundle was written. Try the versions of requirements.lock"
        )
    return Tile(
        file=file.name,
        sha256=sha256_of(file),
        bytes=file.stat().st_size,
        opset=OPSET,
        window=window,
        stride=stride,
        probability_max_abs=apart,
    )
