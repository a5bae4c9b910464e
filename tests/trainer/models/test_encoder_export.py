"""Exported encoders: one graph with dynamic height and width gives the same masks as PyTorch."""

from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from timm.layers.pos_embed_sincos import RotaryEmbeddingDinoV3
from torch import Tensor, nn

from exporter.graph import write_graph
from trainer.config import Model
from trainer.models.encoders.timm_modules import adapt
from trainer.models.predictor import MaskPredictor
from trainer.models.segmenter import build_segmenter

SHALLOW: dict[str, Any] = {"depth": 2, "embed_dim": 24, "num_heads": 2}
ONE_BLOCK = SHALLOW | {"depth": 1}
"""Export time is proportional to the number of blocks; the first two encoders cover maps of different blocks."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_small_patch14_dinov2", SHALLOW),
        ("vit_small_patch14_reg4_dinov2", SHALLOW),
        ("vit_small_patch16_dinov3", ONE_BLOCK),
        ("samvit_base_patch16", SHALLOW | {"img_size": 64, "window_size": 3, "global_attn_indexes": (1,)}),
        ("beit_base_patch16_224", ONE_BLOCK),
        ("swin_tiny_patch4_window7_224", {"depths": (1, 2, 1, 1), "embed_dim": 8, "num_heads": (1, 1, 2, 2)}),
        ("mixer_s32_224", {"mlp_ratio": 1}),
    ],
)
@torch.no_grad()
def test_graph_and_pytorch_give_the_same_masks_at_all_sizes(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    recipe = Model(encoder=name, encoder_options=options, features=8, projections=(8, 8, 8, 8))
    segmenter = build_segmenter(recipe, 3).eval()
    for parameter in segmenter.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.05)
    predictor, multiple = MaskPredictor(segmenter), segmenter.size_multiple
    write_graph(predictor, tmp_path / "model.onnx", multiple=multiple)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    # 37 patches are DINOv2's trained grid, at which neither PyTorch nor the graph may resample.
    for count, height, width in ((1, 37 * multiple, 37 * multiple), (2, 50, 90), (3, multiple, 16 * multiple)):
        image_NHW3 = torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8)
        mask_NHW, confidence_NHW, embedding_ND = predictor(image_NHW3)
        found_mask, found_confidence, found_embedding = session.run(None, {"image": image_NHW3.numpy()})
        assert (found_mask == mask_NHW.numpy()).mean() > 0.9999
        assert abs(found_confidence.astype(int) - confidence_NHW.numpy()).max() <= 1
        cosine_N = (embedding_ND.float() * torch.from_numpy(found_embedding).float()).sum(dim=1)
        assert cosine_N.tolist() == pytest.approx([1] * count, abs=2e-3), "float16 rounds lengths"


def test_rotary_embedding_of_an_exported_graph_follows_the_size() -> None:
    """Timm's divides by the sides of the example image in a graph, which made 11% of a mask's pixels differ."""
    rope = RotaryEmbeddingDinoV3(16)
    expected_ND = rope.get_embed([5, 3])

    class Embedding(nn.Module):
        def forward(self, grid_hw: Tensor) -> Tensor:
            embedding: Tensor = rope.get_embed(list(grid_hw.shape))
            return embedding

    adapt(rope)
    dynamic = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    program = torch.export.export(Embedding(), (torch.zeros(7, 9),), dynamic_shapes=(dynamic,))
    torch.testing.assert_close(program.module()(torch.zeros(5, 3)), expected_ND)
