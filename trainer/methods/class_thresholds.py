"""Adaptive confidence thresholds per class: FreeMatch's self-adaptive thresholding (arXiv 2205.07246).

Off by default: UniMatch V2 has one threshold for all classes.
"""

# B batch, K classes, H W pixels

from collections.abc import Callable

import torch
from torch import Tensor, nn

from trainer.losses import TINY
from trainer.methods.pseudo_labels import PseudoLabels

DECAY = 0.999
"""Decay of both moving averages, from the paper."""


class ClassThresholds(nn.Module):
    """Moving averages of the teacher's predictions, and the thresholds computed from them.

    Deviation: the averages have no initial value; they are divided by the sum of their weights, as in Adam. The paper
    starts at 1 / K, which is right for an untrained network but takes thousands of steps to forget: a short run, or one
    that continues from a trained model, would accept nearly every pixel.
    """

    confidence: Tensor
    probability_K: Tensor
    weight: Tensor
    """Sum of the weights of all batches, 0..1."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.register_buffer("confidence", torch.zeros(()))
        self.register_buffer("probability_K", torch.zeros(classes))
        self.register_buffer("weight", torch.zeros(()))

    @torch.no_grad()
    def update(self, pseudo: PseudoLabels, class_sum_BK: Tensor, total: Callable[[Tensor], Tensor]) -> None:
        """Update the averages with one batch (equations 5 and 6), summed over all processes by `total`.

        `class_sum_BK` is each class's probability, summed over the pixels inside each image.
        """
        inside_BHW = pseudo.inside_BHW
        sums = torch.stack([(pseudo.confidence_BHW * inside_BHW).sum(), inside_BHW.sum(dtype=torch.float32)])
        confidence, count, *_ = sums = total(torch.cat([sums, class_sum_BK.sum(dim=0)]))
        # A batch that is all padding changes nothing.
        step = torch.where(count > 0, 1 - DECAY, 0.0)
        self.confidence.lerp_(confidence / count.clamp(min=1), step)
        self.probability_K.lerp_(sums[2:] / count.clamp(min=1), step)
        self.weight.lerp_(torch.ones_like(self.weight), step)

    def forward(self, label_BHW: Tensor, highest: float) -> Tensor:
        """The threshold of each pixel's class (equations 7 and 8), float [B,H,W].

        Deviation: thresholds are limited to `highest`, the recipe's confidence_threshold; the paper's are not.
        """
        confidence = self.confidence / self.weight.clamp(min=TINY)
        threshold_K = confidence * self.probability_K / self.probability_K.max().clamp(min=TINY)
        return threshold_K.clamp(max=highest)[label_BHW]
