"""How much a score depends on which images were evaluated: a bootstrap over images."""

# N images, R resamples, K classes; 3 = right, true and predicted pixels of a class

import torch
from torch import Tensor

RESAMPLES = 1000
LEVEL = 0.95


def miou_interval(counts_N3K: Tensor, seed: int = 0) -> tuple[float, float] | None:
    """Interval that has the mIoU over the classes in the truth with 95 %; None for fewer than two images.

    `counts_N3K` has for each image the right, the true and the predicted pixels of each class. Percentile bootstrap
    (Efron and Tibshirani, 1993, section 13.3). Frames of one video are not independent: their interval is too narrow.
    """
    images = len(counts_N3K)
    if images < 2:
        return None
    generator = torch.Generator().manual_seed(seed)
    draws_RN = torch.randint(images, (RESAMPLES, images), generator=generator)
    times_RN = torch.zeros((RESAMPLES, images), dtype=torch.float64).scatter_add_(
        1, draws_RN, torch.ones(draws_RN.shape, dtype=torch.float64)
    )
    sums_R3K = (times_RN @ counts_N3K.double().flatten(1)).reshape(RESAMPLES, *counts_N3K.shape[1:])
    right_RK, true_RK, predicted_RK = sums_R3K.unbind(dim=1)
    iou_RK = right_RK / (true_RK + predicted_RK - right_RK).clamp(min=1)
    in_truth_RK = true_RK > 0
    miou_R = (iou_RK * in_truth_RK).sum(dim=1) / in_truth_RK.sum(dim=1).clamp(min=1)
    low, high = miou_R.quantile(torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)).tolist()
    return low, high
