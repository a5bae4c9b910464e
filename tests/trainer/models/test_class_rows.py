"""Rows of the last layer for another list of classes: bounds that hold for any features."""

import math

import pytest
import torch
from torch import Tensor

from trainer.models.class_rows import carry_over

# P pixels, K classes of the checkpoint, N classes of the new list, D features


def logits(seed: int = 0, spread: float = 3.0) -> tuple[Tensor, Tensor, Tensor]:
    """Features [P,D] after a ReLU, trained-looking rows [K,D] with a common offset, and biases [K]."""
    generator = torch.Generator().manual_seed(seed)
    features_PD = torch.randn(2000, 6, generator=generator, dtype=torch.float64).relu()
    row_KD = spread * torch.randn(5, 6, generator=generator, dtype=torch.float64) + 2
    return features_PD, row_KD, torch.randn(5, generator=generator, dtype=torch.float64)


def apply(features_PD: Tensor, row_KD: Tensor, bias_K: Tensor) -> Tensor:
    return features_PD @ row_KD.T + bias_K


def test_rows_are_copied_in_the_new_order() -> None:
    _, row_KD, bias_K = logits()
    rows, biases = carry_over(row_KD, bias_K, [(3,), (0,)])
    assert torch.equal(rows, row_KD[[3, 0]])
    assert torch.equal(biases, bias_K[[3, 0]])


@pytest.mark.parametrize("fresh", [1, 3])
@pytest.mark.parametrize("spread", [0.0, 3.0])
def test_fresh_classes_change_no_prediction_and_are_improbable(fresh: int, spread: float) -> None:
    features_PD, row_KD, bias_K = logits(spread=spread)
    before_PK = apply(features_PD, row_KD, bias_K).softmax(dim=1)
    sources = [*((index,) for index in range(5)), *[()] * fresh]
    after_PN = apply(features_PD, *carry_over(row_KD, bias_K, sources)).softmax(dim=1)
    assert torch.equal(after_PN.argmax(dim=1), before_PK.argmax(dim=1))
    fresh_P = after_PN[:, 5:].sum(dim=1)
    assert (fresh_P <= 1 / (5 + 1) + 1e-12).all()
    if spread:
        confident_P = before_PK.max(dim=1).values > 0.99
        assert fresh_P[confident_P].max() < 0.05


def test_pixels_of_a_carried_class_keep_it_although_other_classes_are_dropped() -> None:
    features_PD, row_KD, bias_K = logits()
    before_P = apply(features_PD, row_KD, bias_K).argmax(dim=1)
    after_P = apply(features_PD, *carry_over(row_KD, bias_K, [(), (1,), (4,)])).argmax(dim=1)
    kept_P = (before_P == 1) | (before_P == 4)
    assert 0 < kept_P.sum() < len(before_P)
    assert torch.equal(after_P[kept_P], torch.where(before_P[kept_P] == 1, 1, 2))


def test_merged_class_has_at_most_the_probability_of_its_parts() -> None:
    features_PD, row_KD, bias_K = logits()
    before_PK = apply(features_PD, row_KD, bias_K).exp()
    merged_P = apply(features_PD, *carry_over(row_KD, bias_K, [(0, 1, 2), (3,), (4,)]))[:, 0].exp()
    parts_P = before_PK[:, :3].sum(dim=1)
    assert (merged_P <= parts_P * (1 + 1e-9)).all()
    row_KD[:3], bias_K[:3] = row_KD[0], bias_K[0]
    equal = carry_over(row_KD, bias_K, [(0, 1, 2)])
    assert equal[1].item() == pytest.approx(bias_K[0].item() + math.log(3))
    assert torch.allclose(equal[0][0], row_KD[0])
