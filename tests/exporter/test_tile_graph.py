"""The graph of one window gives, combined, the result of the trainer's sliding window."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

from exporter.bundle import BundleError, read_manifest, sha256_of
from exporter.export import export
from exporter.probe import embedding_cosine, scene
from exporter.runtime import OnnxPredictor, run_tile_graph
from exporter.verify import verify
from tests.exporter.conftest import NAMES, TINY_VIT, make_checkpoint
from trainer.checkpoint import load
from trainer.config import Inference
from trainer.evaluation.inference import most_likely
from trainer.evaluation.sliding import sliding_probabilities
from trainer.models.segmenter import to_float

WINDOW, STRIDE = (48, 64), 0.5


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("windowed") / "model.safetensors"
    return make_checkpoint(file, TINY_VIT, window=list(WINDOW), window_stride=STRIDE)


@pytest.fixture(scope="module")
def bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "windowed"
    export(checkpoint, out, with_checkpoint=False)
    return out


def test_manifest_describes_the_windows_and_verify_runs_the_graph(bundle: Path) -> None:
    tile = read_manifest(bundle).tile
    assert tile is not None
    assert (tile.file, tile.window, tile.stride) == ("model.tile.onnx", WINDOW, STRIDE)
    assert tile.probability_max_abs < 1e-3
    assert tile.sha256 == sha256_of(bundle / tile.file)
    assert verify(bundle).manifest.tile == tile


def test_height_and_width_are_fixed_and_batch_size_is_dynamic(bundle: Path) -> None:
    graph = onnx.load(bundle / "model.tile.onnx").graph
    sides = [
        [side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    ]
    assert sides == [["N", *WINDOW, 3], ["N", len(NAMES), *WINDOW], ["N", 24]]
    assert {node.domain for node in graph.node} == {""}
    assert run_tile_graph(bundle / "model.tile.onnx", np.zeros((5, *WINDOW, 3), np.uint8))[0].shape[0] == 5


@pytest.mark.parametrize("size", [(100, 150), (30, 200), (48, 64)])
def test_combined_windows_match_the_trainers_sliding_window(
    bundle: Path, checkpoint: Path, size: tuple[int, int]
) -> None:
    image_1HW3 = torch.from_numpy(scene(*size, seed=7)[None].copy())

    def graph(window_nChw: Tensor) -> Tensor:
        bytes_nhw3 = (window_nChw * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        return torch.from_numpy(run_tile_graph(bundle / "model.tile.onnx", np.ascontiguousarray(bytes_nhw3))[0]).log()

    found_HW = sliding_probabilities(graph, to_float(image_1HW3), WINDOW, STRIDE)[0].argmax(dim=0)
    with torch.inference_mode():
        expected_1HW, _ = most_likely(
            load(checkpoint).model.eval(), image_1HW3, Inference(window=WINDOW, window_stride=STRIDE)
        )
    assert (found_HW == expected_1HW[0]).float().mean() >= 0.999


def test_embedding_of_a_window_equals_that_of_the_graph_of_whole_images(bundle: Path) -> None:
    image_NTU3 = np.stack([scene(*WINDOW, seed=seed) for seed in range(3)])
    _, embedding_ND = run_tile_graph(bundle / "model.tile.onnx", image_NTU3)
    expected_ND = OnnxPredictor(bundle / "model.onnx")(image_NTU3).embedding
    assert embedding_ND is not None
    assert expected_ND is not None
    assert (embedding_cosine(list(embedding_ND), list(expected_ND)) or 0) > 0.99999
    tile = read_manifest(bundle).tile
    assert tile is not None
    assert tile.embedding_cosine is not None
    assert tile.embedding_cosine > 0.99999


def test_model_without_sliding_window_has_no_tile_graph(vit_bundle: Path) -> None:
    assert read_manifest(vit_bundle).tile is None
    assert not (vit_bundle / "model.tile.onnx").exists()


def test_verify_rejects_another_graph_as_tile_graph(bundle: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(bundle, tmp_path / "bundle")
    manifest = read_manifest(bundle)
    assert manifest.tile is not None
    (bundle / "model.tile.onnx").write_bytes((bundle / "model.onnx").read_bytes())
    tile = manifest.tile.model_copy(update={"sha256": sha256_of(bundle / "model.tile.onnx")})
    (bundle / "manifest.json").write_text(manifest.model_copy(update={"tile": tile}).to_json())
    with pytest.raises(BundleError, match=r"model\.tile\.onnx: is not the graph of a 64x48 window"):
        verify(bundle)
