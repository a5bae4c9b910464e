"""Networks made for one image size: as timm's at that size, and hand-worked cases of what changes at other sizes."""

# B batch, H W pixels or cells, D channels

import math
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers.conv2d_same import Conv2dSame

from trainer.models.encoders.beit import offset_weights, table_position
from trainer.models.encoders.encoder import EncoderError, build_encoder
from trainer.models.encoders.hierarchical import nearest_stages
from trainer.models.encoders.tiled import Tiled
from trainer.models.encoders.timm_modules import adapt
from trainer.models.encoders.weights import load_encoder_weights
from trainer.models.encoders.windows import join, split

TINY_SWIN: dict[str, Any] = {"depths": (1, 1, 2, 2), "embed_dim": 8, "num_heads": (1, 1, 2, 2)}


def perturb(network: Any) -> Any:
    """Add noise to the weights, of which timm sets many to zero."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return network.eval()


@pytest.mark.parametrize(
    ("name", "options", "side", "count"),
    [
        # A stage with one window has no shift in timm.
        ("swin_tiny_patch4_window7_224", TINY_SWIN, 224, 3),
        ("swinv2_tiny_window16_256", TINY_SWIN, 256, 2),
        ("hiera_tiny_224", {"embed_dim": 8}, 224, 4),
        ("hiera_small_abswin_256", {"embed_dim": 8, "stages": (1, 2, 2, 1)}, 256, 4),
        ("davit_tiny", {"depths": (1, 1, 1, 1), "embed_dims": (8, 16, 24, 32), "num_heads": (1, 1, 1, 1)}, 224, 4),
        ("davit_tiny", {"depths": (1, 1, 1, 1), "embed_dims": (8, 16, 24, 32), "num_heads": (1, 1, 1, 1)}, 160, 4),
        ("twins_svt_small", {"depths": (1, 1, 1, 1), "embed_dims": (8, 16, 24, 32), "num_heads": (1, 1, 1, 1)}, 160, 4),
        ("sam2_hiera_tiny", {"embed_dim": 8, "stages": (1, 2, 2, 1), "global_att_blocks": (4,)}, 96, 4),
        ("beit_base_patch16_224", {"depth": 4, "embed_dim": 24, "num_heads": 2}, 224, 4),
        ("samvit_base_patch16", {"depth": 4, "embed_dim": 24, "num_heads": 2, "img_size": 96, "window_size": 4}, 80, 4),
    ],
)
@torch.no_grad()
def test_maps_are_timms(tmp_path: Path, name: str, options: dict[str, Any], side: int, count: int) -> None:
    image_BCHW = torch.rand(2, 3, side, side)
    encoder, network = build_encoder(name, options), perturb(timm.create_model(name, pretrained=False, **options))
    save_file(network.state_dict(), tmp_path / "timm.safetensors")
    load_encoder_weights(encoder, name, str(tmp_path / "timm.safetensors"))
    expected = network.forward_intermediates(image_BCHW, intermediates_only=True)
    for ours, theirs in list(zip(encoder.eval()(image_BCHW), expected, strict=False))[:count]:
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_beit_keeps_close_offsets_and_stretches_far_ones() -> None:
    # 1 + 2 = 3: the distance between offsets doubles, so that a table of the offsets -2..2 reaches 3.
    expected = [-2, -math.log2(3), -1, 0, 1, math.log2(3), 2]
    assert table_position(torch.arange(-3, 4), length=4, side=3).tolist() == pytest.approx(expected)
    assert table_position(torch.arange(-1, 2), length=2, side=3).tolist() == [-1, 0, 1], "a smaller image: unchanged"
    weight_nnO = offset_weights(4, 3, torch.device("cpu"))
    torch.testing.assert_close(weight_nnO.sum(dim=-1), torch.ones(4, 4))
    assert weight_nnO[2, 0].tolist() == pytest.approx([0, 0, 0, 2 - math.log2(3), math.log2(3) - 1])


def test_windows_are_filled_with_zeros_and_joined() -> None:
    map_BHWD = torch.arange(1.0, 7).reshape(1, 2, 3, 1)
    windows = split(map_BHWD, (2, 2))
    assert windows[..., 0].tolist() == [[[1, 2], [4, 5]], [[3, 0], [6, 0]]]
    assert torch.equal(join(windows, 1, (2, 3)), map_BHWD)


@torch.no_grad()
def test_fixed_padding_is_tensorflows_for_multiples_of_the_stride() -> None:
    network: Any = timm.create_model("tf_efficientnet_b0", features_only=True, out_indices=(1, 2, 3, 4)).eval()
    image_BCHW = torch.rand(1, 3, 64, 96)
    expected = network(image_BCHW)
    adapt(network)
    assert not any(type(module) is Conv2dSame for module in network.modules())
    for ours, theirs in zip(network(image_BCHW), expected, strict=True):
        assert torch.equal(ours, theirs)


@torch.no_grad()
def test_mask_of_shifted_windows_is_timms() -> None:
    for name in ("swin_tiny_patch4_window7_224", "swinv2_cr_tiny_224"):
        network: Any = timm.create_model(name, always_partition=True, strict_img_size=False, **TINY_SWIN)
        map_BHWD = torch.rand(1, 21, 14, 8)
        block = next(module for module in network.modules() if any(getattr(module, "shift_size", ())))
        expected = block.get_attn_mask(map_BHWD)
        adapt(network)
        assert torch.equal(block.get_attn_mask(map_BHWD), expected)


@torch.no_grad()
def test_maxvit_fills_its_windows_and_grids() -> None:
    network: Any = timm.create_model("test_maxvit", features_only=True, out_indices=(1, 2)).eval()
    image_BCHW = torch.rand(1, 3, *network.default_cfg["input_size"][1:])
    expected = network(image_BCHW)
    adapt(network)
    assert all(torch.equal(*pair) for pair in zip(network(image_BCHW), expected, strict=True))
    assert [tuple(map_BCHW.shape[2:]) for map_BCHW in network(torch.rand(1, 3, 64, 96))] == [(16, 24), (8, 12)]


@pytest.mark.parametrize(
    ("reductions", "expected"),
    [
        ([2, 4, 8, 16, 32], [1, 2, 3, 4]),
        ([4, 8, 16, 16, 32], [0, 1, 3, 4]),
        ([16, 32, 64], [0, 0, 0, 1]),
        ([8], [0] * 4),
    ],
)
def test_each_stride_takes_the_nearest_stage(reductions: list[int], expected: list[int]) -> None:
    assert nearest_stages(reductions) == expected


@torch.no_grad()
def test_network_of_one_size_runs_on_tiles() -> None:
    encoder = build_encoder("mixer_s32_224").eval()
    assert isinstance(encoder, Tiled)
    assert encoder.notes == ("it takes images of 224x224 pixels only and runs on tiles of that size",)
    inner, image_BCHW = encoder.encoder, torch.rand(2, 3, 320, 256)
    corner_BCHW = torch.zeros(2, 3, 224, 224)
    corner_BCHW[..., :96, :32] = image_BCHW[..., 224:, 224:]
    maps = encoder(image_BCHW)
    for whole, tile in zip(maps, inner(image_BCHW[..., :224, :224]), strict=True):
        torch.testing.assert_close(whole[..., :7, :7], tile)
    for whole, tile in zip(maps, inner(corner_BCHW), strict=True):
        torch.testing.assert_close(whole[..., 7:, 7:], tile[..., :3, :1])


def test_missing_stage_is_resized_and_noted() -> None:
    encoder = build_encoder("levit_128s")
    assert encoder.notes[:2] == (
        "its map at stride 4 is resized from stride 16",
        "its map at stride 8 is resized from stride 16",
    )


def test_resized_map_of_the_right_stride_is_noted_with_the_reason() -> None:
    assert build_encoder("legacy_xception").notes == (
        "its map at stride 4 is resized: it has another size than the image divided by 4, as without padding",
    )


def test_network_that_does_not_fit_is_refused_and_three_are_named() -> None:
    with pytest.raises(EncoderError, match="such as vit_small_patch14_dinov2, convnext_tiny or swin_tiny"):
        build_encoder("mixer_s32_224", {"img_size": 100})
