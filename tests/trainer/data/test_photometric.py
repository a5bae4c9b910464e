"""Strong augmentation of a batch, compared with torchvision's functions on each image."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as V  # noqa: N812 (short for vision)

from tests.trainer.published_steps import strong_image
from trainer.data.batches.photometric import SIGMA_PX, Photometric, draw_photometric, strong_view

# B batch, C channels, H W pixels


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def identity(batch: int = 1) -> Photometric:
    """Parameters that change nothing."""
    off, one, zero = torch.zeros(batch, dtype=torch.bool), torch.ones(batch), torch.zeros(batch)
    return Photometric(off, one, one, one, zero, torch.arange(4).repeat(batch, 1), off, off, one)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), batch=st.integers(1, 6), height=st.integers(8, 40), width=st.integers(8, 40))
def test_batch_equals_torchvision_on_each_image(seed: int, batch: int, height: int, width: int) -> None:
    draws = generator(seed)
    # 8-bit values, including black, white and grey pixels.
    image_BCHW = torch.randint(0, 256, (batch, 3, height, width), generator=draws) / 255
    image_BCHW[:, :, 0], image_BCHW[:, :, 1], image_BCHW[:, :, 2] = 0, 1, 0.5
    drawn = draw_photometric(batch, draws)
    expected = torch.stack([strong_image(image_CHW, drawn, index) for index, image_CHW in enumerate(image_BCHW)])
    torch.testing.assert_close(strong_view(image_BCHW, drawn), expected, rtol=0, atol=5e-6)


@pytest.mark.parametrize("shift", [-0.25, -0.1, 0.0, 0.17, 0.25])
def test_hue_shift_equals_torchvision_on_a_colour_grid(shift: float) -> None:
    grid = torch.linspace(0, 1, 9)
    image_BCHW = torch.cartesian_prod(grid, grid, grid).T.reshape(1, 3, 27, 27)
    drawn = identity()._replace(jitter_B=torch.tensor([True]), hue_B=torch.tensor([shift]))
    torch.testing.assert_close(strong_view(image_BCHW, drawn), V.adjust_hue(image_BCHW, shift), rtol=0, atol=2e-6)


def test_red_shifted_by_a_quarter_lies_between_yellow_and_green() -> None:
    red_BCHW = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    drawn = identity()._replace(jitter_B=torch.tensor([True]), hue_B=torch.tensor([0.25]))
    # A quarter of the circle is 1.5 sixths.
    torch.testing.assert_close(strong_view(red_BCHW, drawn).flatten(), torch.tensor([0.5, 1.0, 0.0]))


def test_identity_parameters_change_nothing_and_the_input_is_never_modified() -> None:
    image_BCHW = torch.rand(3, 3, 16, 16, generator=generator())
    before = image_BCHW.clone()
    assert torch.equal(strong_view(image_BCHW, identity(3)), before)
    strong_view(image_BCHW, draw_photometric(3, generator(1)))
    assert torch.equal(image_BCHW, before)


def test_rows_are_independent() -> None:
    image_BCHW = torch.rand(6, 3, 24, 24, generator=generator())
    drawn = draw_photometric(6, generator(3))
    index = torch.tensor([4, 1, 5])
    torch.testing.assert_close(
        strong_view(image_BCHW[index], drawn.rows(index)), strong_view(image_BCHW, drawn)[index], rtol=0, atol=1e-6
    )


def test_parameters_have_the_published_ranges_and_rates() -> None:
    drawn = draw_photometric(20_000, generator())
    rates = [chosen_B.float().mean().item() for chosen_B in (drawn.jitter_B, drawn.grey_B, drawn.blur_B)]
    assert rates == pytest.approx([0.8, 0.2, 0.5], abs=0.02)
    for factor_B in (drawn.brightness_B, drawn.contrast_B, drawn.saturation_B):
        assert [factor_B.min().item(), factor_B.max().item()] == pytest.approx([0.5, 1.5], abs=0.01)
    assert [drawn.hue_B.min().item(), drawn.hue_B.max().item()] == pytest.approx([-0.25, 0.25], abs=0.01)
    assert [drawn.sigma_px_B.min().item(), drawn.sigma_px_B.max().item()] == pytest.approx(SIGMA_PX, abs=0.01)
    assert torch.equal(drawn.order_B4.sort(dim=1).values, torch.arange(4).expand(20_000, 4))
    assert drawn.order_B4.float().mean(dim=0).tolist() == pytest.approx([1.5] * 4, abs=0.05)


def test_parameters_differ_per_image_and_repeat_with_the_generator() -> None:
    drawn = draw_photometric(4, generator(2))
    again = draw_photometric(4, generator(2))
    assert all(torch.equal(one, other) for one, other in zip(drawn, again, strict=True))
    assert len(set(drawn.brightness_B.tolist())) == 4


def test_strong_view_is_fp32_under_autocast() -> None:
    image_BCHW = torch.rand(4, 3, 24, 24, generator=generator())
    drawn = draw_photometric(4, generator(5))._replace(blur_B=torch.ones(4, dtype=torch.bool))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        view_BCHW = strong_view(image_BCHW, drawn)
    assert torch.equal(view_BCHW, strong_view(image_BCHW, drawn))


def test_strong_view_never_synchronises_with_the_device() -> None:
    """Reading a value from the meta device raises."""
    view_BCHW = strong_view(torch.empty(32, 3, 24, 24, device="meta"), draw_photometric(32, generator()))
    assert view_BCHW.shape == (32, 3, 24, 24)
