"""Thresholds that follow the teacher, class by class: FreeMatch's self-adaptive thresholding (arXiv 2205.07246).

Off by default: UniMatch V2 has one threshold for all classes.
"""

# B batch, K classes, H W pixels

from collections.abc import Callable

import torch
from torch import Tensor, nn

from trainer.methods.pseudo_labels import PseudoLabels

DECAY = 0.999
"""Of both averages, the paper's."""


class ClassThresholds(nn.Module):
    """Averages of what the teacher says, and the thresholds that follow from them; a module, so that a run can save it.

    Args:
        classes: number K of classes.
    """

    confidence: Tensor
    probability_K: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        # Equations 5 and 6, at time 0.
        self.register_buffer("confidence", torch.tensor(1 / classes))
        self.register_buffer("probability_K", torch.full((classes,), 1 / classes))

    @torch.no_grad()
    def update(self, pseudo: PseudoLabels, class_sum_BK: Tensor, total: Callable[[Tensor], Tensor]) -> None:
        """Take in one batch (equations 5 and 6).

        Args:
            pseudo: its pseudo-labels; the pixels inside count.
            class_sum_BK: for each image the sum of each class's probability over the pixels inside.
            total: sum over all processes.
        """
        inside_BHW = pseudo.inside_BHW
        sums = torch.stack([(pseudo.confidence_BHW * inside_BHW).sum(), inside_BHW.sum(dtype=torch.float32)])
        confidence, count, *_ = sums = total(torch.cat([sums, class_sum_BK.sum(dim=0)]))
        # A batch of nothing but padding says nothing.
        step = torch.where(count > 0, 1 - DECAY, 0.0)
        self.confidence.lerp_(confidence / count.clamp(min=1), step)
        self.probability_K.lerp_(sums[2:] / count.clamp(min=1), step)

    def forward(self, label_BHW: Tensor, highest: float) -> Tensor:
        """The threshold of each pixel's class (equations 7 and 8), float [B,H,W].

        Deviation: the paper has no bound; here no threshold is above `highest`, the one that the recipe sets for all
        classes, so that adaptive thresholds only ever admit more pixels.
        """
        threshold_K = self.confidence * self.probability_K / self.probability_K.max()
        return threshold_K.clamp(max=highest)[label_BHW]
