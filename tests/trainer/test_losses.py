"""Losses and weights equal hand-worked cases and naive references."""

import math
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from trainer.config import RecipeError
from trainer.losses import chunked_cross_entropy, class_weights, ohem_weights, row_chunks

# R rows, K classes, H W pixels of the image, h w of the logits


def logits_of(probability_RHW: Tensor) -> Tensor:
    """Logits [R,2,H,W] that give class 1 these probabilities."""
    odds_RHW = (probability_RHW / (1 - probability_RHW)).log()
    return torch.stack([torch.zeros_like(odds_RHW), odds_RHW], dim=1)


def random_case(rows: int = 5, classes: int = 7) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits [R,K,4,6], labels and weights [R,16,20], factors [R]."""
    draws = torch.Generator().manual_seed(0)
    weight_RHW = torch.rand(rows, 16, 20, generator=draws)
    weight_RHW[weight_RHW < 0.3] = 0
    return (
        3 * torch.randn(rows, classes, 4, 6, generator=draws),
        torch.randint(0, classes, (rows, 16, 20), generator=draws),
        weight_RHW,
        torch.rand(rows, generator=draws),
    )


def naive_cross_entropy(
    logits_RKhw: Tensor, label_RHW: Tensor, weight_RHW: Tensor, factor_R: Tensor, *, align_corners: bool
) -> tuple[Tensor, Tensor]:
    """All rows at once, the gradient by autograd."""
    leaf_RKhw = logits_RKhw.detach().clone().requires_grad_()
    resized_RKHW = F.interpolate(leaf_RKhw.float(), label_RHW.shape[-2:], mode="bilinear", align_corners=align_corners)
    loss_R = (F.cross_entropy(resized_RKHW, label_RHW, reduction="none") * weight_RHW).sum(dim=(1, 2))
    (loss_R * factor_R).sum().backward()  # type: ignore[no-untyped-call]
    assert leaf_RKhw.grad is not None
    return loss_R.detach(), leaf_RKhw.grad


def test_cross_entropy_of_a_hand_worked_case() -> None:
    """Two pixels with weight 1/4 and probability 0.8, one with weight 1/2 and probability 0.4, one with weight 0."""
    probability_RHW = torch.tensor([[[0.8, 0.8], [0.6, 0.1]]])
    label_RHW = torch.tensor([[[1, 1], [0, 1]]])
    weight_RHW = torch.tensor([[[0.25, 0.25], [0.5, 0.0]]])
    loss_R, gradient_RKhw = chunked_cross_entropy(
        logits_of(probability_RHW), label_RHW, weight_RHW, torch.tensor([2.0]), align_corners=True
    )
    assert loss_R.tolist() == pytest.approx([-0.5 * math.log(0.8) - 0.5 * math.log(0.4)])
    # Softmax minus one-hot, times the weight, times the factor: (0.8 - 1) / 4 * 2 and 0.6 / 2 * 2.
    torch.testing.assert_close(gradient_RKhw[0, 1], torch.tensor([[-0.1, -0.1], [0.6, 0.0]]))
    torch.testing.assert_close(gradient_RKhw[:, 0], -gradient_RKhw[:, 1])


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("max_elements", [1, 5000, 2**26])
def test_chunked_loss_and_gradient_equal_the_naive_reference(max_elements: int, align_corners: bool) -> None:
    case = random_case()
    loss_R, gradient_RKhw = chunked_cross_entropy(*case, align_corners=align_corners, max_elements=max_elements)
    expected_R, expected_RKhw = naive_cross_entropy(*case, align_corners=align_corners)
    torch.testing.assert_close(loss_R, expected_R)
    torch.testing.assert_close(gradient_RKhw, expected_RKhw)


def test_loss_of_bf16_logits_is_computed_in_fp32() -> None:
    logits_RKhw, *rest = random_case()
    rounded_RKhw = logits_RKhw.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss_R, gradient_RKhw = chunked_cross_entropy(rounded_RKhw, *rest, align_corners=True)
    expected_R, expected_RKhw = naive_cross_entropy(rounded_RKhw, *rest, align_corners=True)
    assert gradient_RKhw.dtype == torch.bfloat16
    torch.testing.assert_close(loss_R, expected_R)
    torch.testing.assert_close(gradient_RKhw, expected_RKhw)


def test_gradient_continues_through_the_network() -> None:
    logits_RKhw, *rest = random_case()
    weight_K = torch.ones(7, 1, 1, requires_grad=True)
    _, gradient_RKhw = chunked_cross_entropy(logits_RKhw * weight_K, *rest, align_corners=True)
    (logits_RKhw * weight_K).backward(gradient_RKhw)  # type: ignore[no-untyped-call]
    _, expected_RKhw = naive_cross_entropy(logits_RKhw, *rest, align_corners=True)
    torch.testing.assert_close(weight_K.grad, (expected_RKhw * logits_RKhw).sum(dim=(0, 2, 3))[:, None, None])


def test_pixels_with_weight_zero_have_no_gradient() -> None:
    logits_RKhw, label_RHW, weight_RHW, factor_R = random_case()
    loss_R, gradient_RKhw = chunked_cross_entropy(
        logits_RKhw, label_RHW, torch.zeros_like(weight_RHW), factor_R, align_corners=True
    )
    assert not loss_R.any()
    assert not gradient_RKhw.any()


@given(rows=st.integers(0, 50), elements=st.integers(1, 1000), most=st.integers(1, 5000))
def test_chunks_cover_all_rows_in_order_and_are_bounded(rows: int, elements: int, most: int) -> None:
    chunks = list(row_chunks(rows, elements, most))
    assert [row for chunk in chunks for row in range(rows)[chunk]] == list(range(rows))
    assert all((chunk.stop - chunk.start) * elements <= max(most, elements) for chunk in chunks)


def naive_ohem(logits_RKhw: Tensor, label_RHW: Tensor, valid_RHW: Tensor, threshold: float, min_kept: int) -> Tensor:
    """The loss in the authors' code: drop easy pixels, average over the others."""
    logits_RKHW = F.interpolate(logits_RKhw, label_RHW.shape[-2:], mode="bilinear", align_corners=True)
    probability_RHW = logits_RKHW.softmax(dim=1).gather(1, label_RHW[:, None])[:, 0]
    ranked = sorted(probability_RHW[valid_RHW].tolist())
    bound = 1.0 if len(ranked) < min_kept else max(threshold, ranked[min_kept - 1])
    kept_RHW = valid_RHW & (probability_RHW <= bound)
    return F.cross_entropy(logits_RKHW, torch.where(kept_RHW, label_RHW, 255), ignore_index=255)


@pytest.mark.parametrize(
    ("min_kept", "kept"),
    [(0, [0.6]), (1, [0.6]), (2, [0.6, 0.8]), (3, [0.6, 0.8, 0.9]), (9, [0.6, 0.8, 0.9])],
    ids=["no minimum", "below the threshold", "at least two", "all three", "more than exist"],
)
def test_ohem_of_a_hand_worked_case(min_kept: int, kept: list[float]) -> None:
    """Threshold 0.7; the pixel with probability 0.1 is not labelled, so it is not hard."""
    probability_RHW = torch.tensor([[[0.9, 0.8], [0.6, 0.1]]])
    label_RHW = torch.ones(1, 2, 2, dtype=torch.int64)
    weight_RHW = torch.tensor([[[1.0, 1.0], [1.0, 0.0]]]) / 3
    hard_RHW = ohem_weights(
        logits_of(probability_RHW), label_RHW, weight_RHW, threshold=0.7, min_kept=min_kept, align_corners=True
    )
    assert sorted(probability_RHW[hard_RHW > 0].tolist()) == pytest.approx(kept)
    assert hard_RHW[hard_RHW > 0].tolist() == pytest.approx([1 / len(kept)] * len(kept))


@pytest.mark.parametrize("min_kept", [1, 500, 1000, 100_000])
@pytest.mark.parametrize("max_elements", [1, 2**26])
def test_ohem_equals_the_naive_reference(min_kept: int, max_elements: int) -> None:
    logits_RKhw, label_RHW, weight_RHW, _ = random_case()
    valid_RHW = weight_RHW > 0
    weight_RHW = valid_RHW / valid_RHW.sum()
    hard_RHW = ohem_weights(
        logits_RKhw,
        label_RHW,
        weight_RHW,
        threshold=0.05,
        min_kept=min_kept,
        align_corners=True,
        max_elements=max_elements,
    )
    loss_R, _ = chunked_cross_entropy(logits_RKhw, label_RHW, hard_RHW, torch.ones(5), align_corners=True)
    torch.testing.assert_close(loss_R.sum(), naive_ohem(logits_RKhw, label_RHW, valid_RHW, 0.05, min_kept))


def test_ohem_preserves_proportions_and_sum_of_the_weights() -> None:
    logits_RKhw, label_RHW, weight_RHW, _ = random_case()
    hard_RHW = ohem_weights(logits_RKhw, label_RHW, weight_RHW, threshold=0.1, min_kept=1, align_corners=True)
    kept_RHW = hard_RHW > 0
    assert 0 < kept_RHW.sum() < (weight_RHW > 0).sum()
    torch.testing.assert_close(hard_RHW.sum(), weight_RHW.sum())
    ratio = hard_RHW[kept_RHW] / weight_RHW[kept_RHW]
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))


def test_ohem_keeps_the_hardest_pixel_if_none_is_below_the_threshold() -> None:
    label_RHW, weight_RHW = torch.ones(1, 1, 3, dtype=torch.int64), torch.full((1, 1, 3), 1 / 3)
    logits_RKhw = logits_of(torch.tensor([[[0.9, 0.8, 0.95]]]))
    hard_RHW = ohem_weights(logits_RKhw, label_RHW, weight_RHW, threshold=0.7, min_kept=0, align_corners=True)
    assert hard_RHW.flatten().tolist() == pytest.approx([0, 1, 0])


def test_ohem_without_labelled_pixels_is_zero() -> None:
    logits_RKhw, label_RHW, weight_RHW, _ = random_case()
    hard_RHW = ohem_weights(
        logits_RKhw, label_RHW, torch.zeros_like(weight_RHW), threshold=0.7, min_kept=10, align_corners=True
    )
    assert not hard_RHW.any()


def test_losses_do_not_synchronize_with_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the meta device, every operation that needs a value on the host raises."""
    monkeypatch.setattr(torch, "autocast", lambda *_args, **_options: nullcontext())
    logits_RKhw, label_RHW, weight_RHW, factor_R = (tensor.to("meta") for tensor in random_case())
    hard_RHW = ohem_weights(logits_RKhw, label_RHW, weight_RHW, threshold=0.7, min_kept=10, align_corners=True)
    loss_R, gradient_RKhw = chunked_cross_entropy(logits_RKhw, label_RHW, hard_RHW, factor_R, align_corners=True)
    assert (loss_R.shape, gradient_RKhw.shape) == ((5,), logits_RKhw.shape)


def test_class_weights_of_a_hand_worked_case() -> None:
    """Inverse frequencies of 1/2, 1/8, 0, 3/8 with the second doubled: 2, 16, -, 8/3, whose mean is 62/9."""
    weight_K = class_weights(
        ["road", "pole", "train", "car"], {"pole": 2.0}, torch.tensor([400, 100, 0, 300]), balance=1.0
    )
    assert weight_K.tolist() == pytest.approx([2 / (62 / 9), 16 / (62 / 9), 1, (8 / 3) / (62 / 9)])


def test_class_weights_are_found_in_another_unicode_form_of_the_name() -> None:
    weight_K = class_weights(["caf\u00e9", "b"], {"cafe\u0301": 3.0}, torch.ones(2), balance=0.0)
    assert weight_K.tolist() == [1.5, 0.5]


def test_class_weights_default_to_one() -> None:
    assert class_weights(["a", "b"], {}, torch.tensor([0.9, 0.1]), balance=0.0).tolist() == [1, 1]


def test_class_weights_reject_unknown_and_all_zero_classes() -> None:
    with pytest.raises(RecipeError, match="no class poles; its classes are road, pole"):
        class_weights(["road", "pole"], {"poles": 2.0}, torch.ones(2), balance=0.0)
    with pytest.raises(RecipeError, match="no class that occurs"):
        class_weights(["road", "pole"], {"road": 0.0}, torch.tensor([1.0, 0.0]), balance=0.0)
