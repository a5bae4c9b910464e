"""Losses against hand-worked cases."""

import math

import pytest
import torch

from trainer.losses import consistency_loss, labelled_loss

# B batch, K classes, H W pixels


def logits_of(probability: float, shape: tuple[int, int, int]) -> torch.Tensor:
    """Logits [B,2,H,W] that give class 1 the probability everywhere."""
    batch, height, width = shape
    return (
        torch.tensor([0.0, math.log(probability / (1 - probability))]).view(1, 2, 1, 1).expand(batch, 2, height, width)
    )


def test_labelled_loss_averages_over_labelled_pixels_alone() -> None:
    mask_BHW = torch.tensor([[[1, 1], [0, 255]]])
    expected = (2 * -math.log(0.8) - math.log(0.2)) / 3
    assert labelled_loss(logits_of(0.8, (1, 2, 2)), mask_BHW, 255).item() == pytest.approx(expected)


def test_labelled_loss_without_a_labelled_pixel_is_zero_and_has_a_gradient() -> None:
    logits = logits_of(0.8, (1, 2, 2)).clone().requires_grad_()
    loss = labelled_loss(logits, torch.full((1, 2, 2), 255), 255)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_consistency_loss_sums_confident_pixels_and_divides_by_all_inside() -> None:
    label = torch.ones(1, 2, 2, dtype=torch.long)
    confidence = torch.tensor([[[0.99, 0.95], [0.5, 0.99]]])
    inside = torch.tensor([[[True, True], [True, False]]])
    # Two confident pixels inside, of three inside; the confident one on padding does not count.
    expected = 2 * -math.log(0.8) / 3
    loss = consistency_loss(logits_of(0.8, (1, 2, 2)), label, confidence, inside, threshold=0.95)
    assert loss.item() == pytest.approx(expected)


def test_consistency_loss_of_nothing_but_padding_is_zero() -> None:
    nothing = torch.zeros(1, 2, 2, dtype=torch.bool)
    loss = consistency_loss(logits_of(0.8, (1, 2, 2)), nothing.long(), nothing.float() + 1, nothing, threshold=0.95)
    assert loss.item() == 0
