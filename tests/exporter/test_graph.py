"""The exported graph equals PyTorch at every size, and is one file without local paths."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from exporter.export import eager
from exporter.graph import OPSET, write_graph
from exporter.probe import cosine, scene
from exporter.runtime import OnnxPredictor
from tests.exporter.conftest import predictor_of

SIZES = [(1, 96, 128), (3, 75, 101), (1, 33, 200), (2, 200, 40), (1, 240, 320), (1, 9, 9)]


@pytest.mark.parametrize(("count", "height", "width"), SIZES)
@pytest.mark.parametrize("kind", ["vit", "convnet"])
def test_graph_matches_pytorch_at_any_batch_size_and_image_size(
    kind: str, count: int, height: int, width: int, request: pytest.FixtureRequest
) -> None:
    checkpoint: Path = request.getfixturevalue(f"{kind}_checkpoint")
    bundle: Path = request.getfixturevalue(f"{kind}_bundle")
    image_NHW3 = np.stack([scene(height, width, seed) for seed in range(50, 50 + count)])
    mask, confidence, embedding = OnnxPredictor(bundle / "model.onnx")(image_NHW3)
    expected_mask, expected_confidence, expected_embedding = eager(predictor_of(checkpoint))(image_NHW3)
    assert mask.shape == confidence.shape == (count, height, width)
    assert mask.dtype == confidence.dtype == np.dtype(np.uint8)
    # The ConvNet's weights are stored as fp16.
    max_unequal, max_difference = (0.001, 1) if kind == "vit" else (0.005, 3)
    assert np.count_nonzero(mask != expected_mask) <= max_unequal * mask.size + 1
    assert np.abs(confidence.astype(int) - expected_confidence).max() <= max_difference
    assert embedding is not None
    assert expected_embedding is not None
    assert embedding.dtype == np.dtype(np.float16)
    assert embedding.shape == expected_embedding.shape == (count, 24 if kind == "vit" else 64)
    assert [cosine(*pair) >= 0.99999 for pair in zip(embedding, expected_embedding, strict=True)] == [True] * count
    assert np.linalg.norm(embedding.astype(np.float64), axis=1) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("kind", ["vit", "convnet"])
def test_embedding_of_an_image_does_not_depend_on_its_batch(kind: str, request: pytest.FixtureRequest) -> None:
    predict = OnnxPredictor(request.getfixturevalue(f"{kind}_bundle") / "model.onnx")
    image_NHW3 = np.stack([scene(61, 83, seed) for seed in range(3)])
    together, alone = predict(image_NHW3).embedding, [predict(each[None]).embedding for each in image_NHW3]
    assert together is not None
    for one_D, other_1D in zip(together, alone, strict=True):
        assert other_1D is not None
        assert cosine(one_D, other_1D[0]) > 0.999999
    assert cosine(together[0], together[1]) < 0.99, "different scenes have different embeddings"


def test_probe_masks_contain_several_classes(vit_bundle: Path, convnet_bundle: Path) -> None:
    """Otherwise agreement of masks would prove little."""
    for bundle in (vit_bundle, convnet_bundle):
        with np.load(bundle / "probe.npz") as probe:
            shares = np.bincount(probe["mask_0"].ravel(), minlength=5) / probe["mask_0"].size
        assert np.count_nonzero(shares > 0.02) >= 4


@pytest.mark.parametrize("kind", ["vit", "convnet"])
def test_graph_is_one_file_without_local_paths(kind: str, request: pytest.FixtureRequest) -> None:
    file: Path = request.getfixturevalue(f"{kind}_bundle") / "model.onnx"
    model = onnx.load(file, load_external_data=False)
    assert [(entry.domain, entry.version) for entry in model.opset_import if entry.domain == ""] == [("", OPSET)]
    assert {node.domain for node in model.graph.node} <= {""}
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    sides = [side.dim_param or side.dim_value for side in model.graph.input[0].type.tensor_type.shape.dim]
    assert sides == ["N", "H", "W", 3]
    assert b".py" not in file.read_bytes()


def test_fp16_weights_are_cast_to_fp32(
    convnet_bundle: Path, tmp_path: Path, convnet_checkpoint: Path, write_graph_once: Callable[..., None]
) -> None:
    predictor, fp32, fp16 = predictor_of(convnet_checkpoint), tmp_path / "fp32.onnx", convnet_bundle / "model.onnx"
    write_graph_once(predictor, fp32, multiple=32, metadata={})
    counts = {len(onnx.load(file).graph.initializer) for file in (fp32, fp16)}
    assert len(counts) == 1, "the same number of tensors"
    assert 0.5 <= _weight_bytes(fp16) / _weight_bytes(fp32) < 0.65
    casts = [node for node in onnx.load(fp16).graph.node if node.op_type == "Cast" and node.input[0].endswith(".fp16")]
    assert casts
    assert all(node.attribute[0].i == onnx.TensorProto.FLOAT for node in casts)


def _weight_bytes(file: Path) -> int:
    return sum(len(tensor.raw_data) for tensor in onnx.load(file).graph.initializer)


class ManyClasses(nn.Module):
    """Predicts class 2 * R + G, up to 765."""

    def forward(self, image_NHW3: Tensor) -> tuple[Tensor, Tensor]:
        mask = 2 * image_NHW3[..., 0].to(torch.int32) + image_NHW3[..., 1].to(torch.int32)
        return mask, image_NHW3[..., 2]


def test_more_than_256_classes_give_uint16_masks(tmp_path: Path) -> None:
    write_graph(ManyClasses(), tmp_path / "model.onnx", multiple=1)
    image_NHW3 = np.full((1, 4, 5, 3), 255, np.uint8)
    mask, *_ = OnnxPredictor(tmp_path / "model.onnx")(image_NHW3)
    assert mask.dtype == np.uint16
    assert np.all(mask == 765)


class RelativeRows(nn.Module):
    """Predicts 2 * row * max(height / width, 1), as MViT computes its relative positions."""

    def forward(self, image_NHW3: Tensor) -> tuple[Tensor, Tensor]:
        height, width = image_NHW3.shape[1:3]
        rows = 2 * torch.arange(height).unsqueeze(-1) * max(height / width, 1.0)
        mask = rows.long() + 0 * image_NHW3[..., 0]
        return mask.to(torch.uint8), image_NHW3[..., 2]


def test_number_that_depends_on_the_size_is_a_factor(tmp_path: Path) -> None:
    write_graph(RelativeRows(), tmp_path / "model.onnx", multiple=1)
    predict = OnnxPredictor(tmp_path / "model.onnx")
    for height, width, expected in ((4, 2, [0, 4, 8, 12]), (3, 6, [0, 2, 4]), (5, 4, [0, 2, 5, 7, 10])):
        mask, *_ = predict(np.zeros((1, height, width, 3), np.uint8))
        assert mask[0, :, 0].tolist() == expected


def test_graph_with_fixed_size_is_refused(tmp_path: Path) -> None:
    image = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, [1, 4, 4, 3])
    outputs = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, [1, 4, 4]) for name in ("mask", "confidence")
    ]
    nodes = [onnx.helper.make_node("Gather", ["image", "channel"], [name], axis=3) for name in ("mask", "confidence")]
    channel = onnx.helper.make_tensor("channel", onnx.TensorProto.INT64, [], [0])
    graph = onnx.helper.make_graph(nodes, "fixed", [image], outputs, [channel])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=10)
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ValueError, match="fixed shape"):
        OnnxPredictor(tmp_path / "model.onnx")
