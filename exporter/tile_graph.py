"""Export the graph of one window for models that were evaluated with a sliding window.

BUNDLE.md states how a program combines the windows; trainer/evaluation/sliding.py does the same.
"""

# N windows, K classes, D channels, T U height and width of a window

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from exporter.artifacts import MIN_EMBEDDING_COSINE
from exporter.bundle import BundleError, sha256_of
from exporter.graph import OPSET, write_tile_graph
from exporter.manifest import Tile
from exporter.probe import embedding_cosine, scene
from exporter.runtime import run_tile_graph
from trainer.models.embedding import image_embedding
from trainer.models.segmenter import Segmenter, to_float

TILE_GRAPH = "model.tile.onnx"
PROBABILITY_MAX_ABS = 1e-3
"""Largest accepted difference of a probability between PyTorch and onnxruntime."""


class TilePredictor(nn.Module):
    """Class probabilities and embedding of a window."""

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        self.segmenter = segmenter

    def forward(self, image_NTU3: Tensor) -> tuple[Tensor, Tensor]:
        """Images uint8 [N,T,U,3], RGB, to the softmax float32 [N,K,T,U] and `image_embedding`, float16 [N,D]."""
        segmenter = self.segmenter
        maps = segmenter.encode(to_float(image_NTU3))
        logits_NKTU = segmenter.upsample(segmenter.head(maps), image_NTU3.shape[1:3])
        return logits_NKTU.float().softmax(dim=1), image_embedding(maps[-1])


def export_tile_graph(
    segmenter: Segmenter, file: Path, *, window: tuple[int, int], stride: float, metadata: Mapping[str, str]
) -> Tile:
    """Write the graph and compare it with PyTorch.

    `segmenter` is in eval mode, on the CPU; `window` is height and width in pixels, multiples of the network's;
    `stride` is the step between windows as a fraction of the side; `metadata` becomes the file's metadata_props. Raises
    BundleError if a probability differs by more than PROBABILITY_MAX_ABS, or an embedding's cosine is below
    MIN_EMBEDDING_COSINE.
    """
    network = TilePredictor(segmenter).eval()
    write_tile_graph(network, file, window=window, metadata=metadata)
    image_NTU3 = np.stack([scene(*window, seed) for seed in range(3)])
    with torch.inference_mode():
        expected_NKTU, expected_ND = (each.numpy() for each in network(torch.from_numpy(image_NTU3)))
    found_NKTU, found_ND = run_tile_graph(file, image_NTU3)
    difference = float(np.abs(found_NKTU - expected_NKTU).max())
    if difference > PROBABILITY_MAX_ABS:
        raise BundleError(
            f"probabilities of {file.name} differ from PyTorch's by {difference:.2g}, and at most "
            f"{PROBABILITY_MAX_ABS} is allowed; no bundle was written. Try the versions of requirements.lock"
        )
    cosine = embedding_cosine(list(expected_ND), [None] * len(expected_ND) if found_ND is None else list(found_ND))
    if cosine is not None and cosine < MIN_EMBEDDING_COSINE["fp32"]:
        raise BundleError(
            f"the cosine of an embedding of {file.name} with PyTorch's is {cosine:.6f}, and at least "
            f"{MIN_EMBEDDING_COSINE['fp32']} is required; no bundle was written. Try the versions of requirements.lock"
        )
    return Tile(
        file=file.name,
        sha256=sha256_of(file),
        bytes=file.stat().st_size,
        opset=OPSET,
        window=window,
        stride=stride,
        probability_max_abs=difference,
        embedding_cosine=cosine,
    )
