"""Interval of the mIoU by a bootstrap over images."""

import pytest
import torch

from trainer.evaluation.interval import miou_interval


def test_equal_images_leave_no_doubt() -> None:
    # IoU 8 / (10 + 9 - 8) and 5 / (6 + 7 - 5) in every image.
    each_3K = torch.tensor([[8, 5], [10, 6], [9, 7]])
    mean = (8 / 11 + 5 / 8) / 2
    assert miou_interval(each_3K.expand(5, 3, 2)) == pytest.approx((mean, mean))


def test_interval_is_that_of_the_binomial_distribution() -> None:
    """Half of 100 images are right, half wrong: the share p of right ones is 0.5 ± 1.96 * 0.05, the IoU p / (2 - p)."""
    right, wrong = torch.tensor([[10], [10], [10]]), torch.tensor([[0], [10], [10]])
    found = miou_interval(torch.stack([right, wrong] * 50))
    assert found == pytest.approx([share / (2 - share) for share in (0.402, 0.598)], abs=0.015)


def test_class_outside_the_truth_does_not_count() -> None:
    each_3K = torch.tensor([[10, 0], [10, 0], [10, 3]])
    assert miou_interval(each_3K.expand(4, 3, 2)) == (1.0, 1.0)


def test_one_image_has_no_interval() -> None:
    assert miou_interval(torch.ones(1, 3, 2)) is None
