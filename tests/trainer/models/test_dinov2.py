"""The features of DINOv2 equal those of an independent reference implementation."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor

from tests.trainer.published_network import GRID, Size, feature_maps, random_backbone
from trainer.models.encoders.encoder import Encoder, build_encoder
from trainer.models.encoders.plain_vit import DINOv2
from trainer.models.encoders.position_embedding import resample
from trainer.models.encoders.weights import load_encoder_weights

TINY = Size(width=128, depth=4, output_blocks=(0, 1, 2, 3), features=8, projections=(8, 8, 8, 8))
GATED = Size(width=128, depth=4, output_blocks=(0, 1, 2, 3), features=8, projections=(8, 8, 8, 8), gated=344)
OPTIONS = {"depth": 4, "embed_dim": 128, "num_heads": 2}
AT_518 = (518, 518)
OTHERS = [(42, 70), (28, 518), (518, 504), (560, 28)]


def with_metas_weights(folder: Path, name: str, size: Size, registers: int = 0) -> tuple[Encoder, dict[str, Tensor]]:
    """An encoder with weights from a file with Meta's names, and the tensors of that file."""
    torch.manual_seed(0)
    state = random_backbone(size, registers=registers)
    torch.save({key.removeprefix("backbone."): value for key, value in state.items()}, folder / "meta.pth")
    torch.manual_seed(1)
    options = OPTIONS | ({"mlp_ratio": 2 * size.gated / size.width} if size.gated else {})
    encoder = build_encoder(name, options).eval()
    load_encoder_weights(encoder, name, str(folder / "meta.pth"))
    return encoder, state


@pytest.mark.parametrize("size", [AT_518, *OTHERS])
@pytest.mark.parametrize(
    ("name", "architecture", "registers"),
    [
        ("vit_small_patch14_dinov2", TINY, 0),
        ("vit_small_patch14_reg4_dinov2", TINY, 4),
        ("vit_giant_patch14_dinov2", GATED, 0),
    ],
    ids=["plain", "registers", "gated"],
)
@torch.no_grad()
def test_features_equal_the_reference(
    tmp_path: Path, name: str, architecture: Size, registers: int, size: tuple[int, int]
) -> None:
    encoder, state = with_metas_weights(tmp_path, name, architecture, registers)
    image_B3HW = torch.randn(1, 3, *size)
    found, expected = encoder(image_B3HW), feature_maps(state, architecture, image_B3HW)
    for found_BDhw, expected_BDhw in zip(found, expected, strict=True):
        torch.testing.assert_close(found_BDhw, expected_BDhw, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["vit_small_patch14_dinov2", "vit_base_patch14_dinov2.lvd142m"])
def test_dinov2_without_registers_uses_its_own_position_embedding(name: str) -> None:
    assert isinstance(build_encoder(name, OPTIONS), DINOv2)


@pytest.mark.parametrize("size", [(2, 3), (24, 24), (37, 36), (57, 57), (1, 1), (74, 38)])
def test_resampling_equals_interpolation_with_offset_scale_factors(size: tuple[int, int]) -> None:
    table_GGD = torch.randn(GRID, GRID, 8, generator=torch.Generator().manual_seed(0))
    factors = [(side + 0.1) / GRID for side in size]
    expected_1Dhw = F.interpolate(table_GGD.permute(2, 0, 1)[None], scale_factor=factors, mode="bicubic")
    torch.testing.assert_close(resample(table_GGD, *size), expected_1Dhw[0].permute(1, 2, 0), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("waves", "lowest", "highest"), [(4, 0.005, 0.015), (GRID, 0.10, 0.14)])
def test_resampling_of_timm_differs(waves: int, lowest: float, highest: float) -> None:
    """At the size of Cityscapes' window: by 1% of a smooth table, by 12% of a random one."""
    torch.manual_seed(0)
    place_G = torch.linspace(0, torch.pi, GRID)
    wave_GK = torch.cos(place_G[:, None] * torch.arange(waves))
    table_GGD = torch.einsum("iK,jL,KLD->ijD", wave_GK, wave_GK, torch.randn(waves, waves, 64))
    ours_hwD = resample(table_GGD, 57, 57)
    timms_1ND = resample_abs_pos_embed(table_GGD.flatten(0, 1)[None], [57, 57], num_prefix_tokens=0)
    difference = (timms_1ND[0] - ours_hwD.flatten(0, 1)).norm() / ours_hwD.norm()
    assert lowest < difference.item() < highest


def test_table_is_unchanged_at_the_trained_size() -> None:
    table_GGD = torch.randn(GRID, GRID, 8)
    assert torch.equal(resample(table_GGD, GRID, GRID), table_GGD)


def test_autocast_does_not_round_the_table() -> None:
    table_GGD = torch.randn(GRID, GRID, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found_hwD = resample(table_GGD, 20, 30)
    assert torch.equal(found_hwD, resample(table_GGD, 20, 30))


def test_gradient_reaches_the_whole_table() -> None:
    table_GGD = torch.randn(GRID, GRID, 2, dtype=torch.float32, requires_grad=True)
    resample(table_GGD, 40, 52).square().sum().backward()  # type: ignore[no-untyped-call]
    assert table_GGD.grad is not None
    assert bool((table_GGD.grad != 0).all())
