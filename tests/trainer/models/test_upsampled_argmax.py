"""upsampled_argmax equals softmax and arg-max over fully upsampled logits."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (the field's name for it)

from trainer.models.upsampled_argmax import CLASSES_AT_ONCE, upsampled_argmax


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("classes", [1, 3, CLASSES_AT_ONCE, CLASSES_AT_ONCE + 1, 150])
def test_result_equals_softmax_of_resized_logits(classes: int, *, align_corners: bool) -> None:
    torch.manual_seed(0)
    logits_NKhw = 5 * torch.randn(2, classes, 7, 9)
    whole_NKHW = F.interpolate(logits_NKhw, (23, 31), mode="bilinear", align_corners=align_corners)
    confidence_NHW, class_NHW = whole_NKHW.double().softmax(dim=1).max(dim=1)
    found_class, found_confidence = upsampled_argmax(logits_NKhw, (23, 31), align_corners=align_corners)
    assert torch.equal(found_class, class_NHW)
    torch.testing.assert_close(found_confidence, confidence_NHW.float())


def test_hand_worked_case_with_two_groups() -> None:
    # Two pixels, 17 classes with logit 0; at the first, class 16 has log 4: 4 / (16 + 4). The second is a tie.
    logits_NKhw = torch.zeros(1, 17, 1, 2)
    logits_NKhw[0, 16, 0, 0] = torch.log(torch.tensor(4.0))
    class_NHW, confidence_NHW = upsampled_argmax(logits_NKhw, (1, 2), align_corners=False)
    assert class_NHW.tolist() == [[[16, 0]]]
    torch.testing.assert_close(confidence_NHW, torch.tensor([[[4 / 20, 1 / 17]]]))


@pytest.mark.parametrize("winner", [0, 20])
def test_large_logits_do_not_overflow(winner: int) -> None:
    logits_NKhw = torch.full((1, 21, 2, 2), -1e4)
    logits_NKhw[:, winner] = 1e4
    class_NHW, confidence_NHW = upsampled_argmax(logits_NKhw, (4, 4), align_corners=False)
    assert (class_NHW == winner).all()
    assert (confidence_NHW == 1).all()


def test_extreme_differences_give_a_class_and_a_finite_confidence() -> None:
    # Between the two pixels both classes are thousands below the largest of either.
    logits_NKhw = torch.tensor([[[[1e4, -1e4]], [[-1e4, 1.1e4]]]])
    class_NHW, confidence_NHW = upsampled_argmax(logits_NKhw, (1, 6), align_corners=False)
    assert class_NHW.tolist() == [[[0, 0, 0, 1, 1, 1]]]
    assert (confidence_NHW[..., [0, -1]] == 1).all()
    assert ((confidence_NHW >= 0) & (confidence_NHW <= 1)).all()


def test_confidence_of_bf16_logits_is_float32() -> None:
    _, confidence_NHW = upsampled_argmax(torch.randn(1, 3, 2, 2).bfloat16(), (4, 4), align_corners=False)
    assert confidence_NHW.dtype == torch.float32


def test_logits_without_classes_are_rejected() -> None:
    with pytest.raises(ValueError, match="at least one"):
        upsampled_argmax(torch.zeros(1, 0, 2, 2), (4, 4), align_corners=False)
