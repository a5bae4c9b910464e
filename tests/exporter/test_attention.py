"""A graph with fused attention gives the same masks and has no Softmax over scores."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from torch import Tensor, nn

from exporter.attention import DOMAIN, FUSED, fuse_attention
from exporter.bundle import read_manifest
from exporter.export import eager
from exporter.graph import save, write_graph
from exporter.probe import embedding_cosine, scene
from exporter.runtime import OnnxPredictor
from tests.exporter.conftest import predictor_of
from trainer.checkpoint import load


def test_bundle_of_a_vit_has_a_fused_graph(vit_bundle: Path, vit_checkpoint: Path) -> None:
    plain, fused = read_manifest(vit_bundle).artifacts
    blocks = len(load(vit_checkpoint).model.encoder.blocks())
    assert (plain.file, plain.fused_attention) == ("model.onnx", None)
    assert (fused.file, fused.precision, fused.fused_attention) == ("model.fused.onnx", "fp32", blocks)
    nodes = onnx.load(vit_bundle / fused.file).graph.node
    assert sum(node.op_type == FUSED and node.domain == DOMAIN for node in nodes) == blocks
    assert not any(node.op_type == "Softmax" for node in nodes)


@pytest.mark.parametrize(("count", "height", "width"), [(2, 75, 101), (1, 9, 9), (1, 240, 320)])
def test_fused_graph_matches_pytorch(
    vit_bundle: Path, vit_checkpoint: Path, count: int, height: int, width: int
) -> None:
    image_NHW3 = np.stack([scene(height, width, seed) for seed in range(count)])
    mask, confidence, embedding = OnnxPredictor(vit_bundle / "model.fused.onnx")(image_NHW3)
    expected_mask, expected_confidence, expected_embedding = eager(predictor_of(vit_checkpoint))(image_NHW3)
    assert np.mean(mask == expected_mask) >= 0.999
    assert np.abs(confidence.astype(int) - expected_confidence).max() <= 1
    assert (embedding_cosine(list(np.asarray(embedding)), list(np.asarray(expected_embedding))) or 0) > 0.99999


def test_network_without_attention_has_no_fused_graph(convnet_bundle: Path) -> None:
    assert [artifact.file for artifact in read_manifest(convnet_bundle).artifacts] == ["model.onnx"]
    model = onnx.load(convnet_bundle / "model.onnx")
    same, count = fuse_attention(model)
    assert count == 0
    assert {entry.domain for entry in same.opset_import} == {""}


class OneAttention(nn.Module):
    """Attention over the rows of an image, with its own scale, a position bias, or one head of keys and values."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.mix = nn.Linear(3, 3 * 16)
        self.kind = kind

    def forward(self, image_NHW3: Tensor) -> tuple[Tensor, Tensor]:
        tokens = image_NHW3.float().mean(dim=2) / 255
        query, key, value = self.mix(tokens).unflatten(-1, (3, 4, 4)).permute(2, 0, 3, 1, 4).unbind()
        if self.kind == "multi-query":
            key, value = key[:, :1], value[:, :1]
        bias = torch.arange(key.shape[2], dtype=torch.float32)[None] if self.kind == "biased" else None
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=0.3).sum(dim=(1, 3))
        level_NHW = (mixed[:, :, None] * 40).abs().clamp(max=255).expand(image_NHW3.shape[:3])
        return (level_NHW > 20).to(torch.uint8), level_NHW.to(torch.uint8)


@pytest.mark.parametrize("kind", ["plain", "biased", "multi-query"])
def test_scale_is_kept_and_only_plain_attention_is_fused(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    predictor, image_NHW3 = OneAttention(kind).eval(), np.stack([scene(40, 30, seed) for seed in range(2)])
    write_graph(predictor, tmp_path / "traced.onnx", multiple=8)
    fused, count = fuse_attention(onnx.load(tmp_path / "traced.onnx"))
    assert count == (1 if kind == "plain" else 0)
    save(fused, tmp_path / "fused.onnx")
    _, level_NHW, _ = OnnxPredictor(tmp_path / "fused.onnx")(image_NHW3)
    _, expected_NHW, _ = eager(predictor)(image_NHW3)
    assert np.ptp(expected_NHW) > 0
    assert np.abs(level_NHW.astype(int) - expected_NHW).max() <= 1
