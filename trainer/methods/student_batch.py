"""The student's inputs and targets in one step: images, labels and pixel weights.

Every method produces this form, so the training step computes one loss for all: a weighted cross-entropy over the rows.
All mixing is already done, so the rows can be split into any micro-batches.
"""

# R rows, B labelled images, C channels, H W pixels

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class StudentBatch:
    """Rows for the student: first the labelled images, then the strong views.

    Attributes:
        image_RCHW: float, RGB, 0..1.
        label_RHW: int64; any class id where the weight is 0.
        weight_RHW: float32. The weights contain the division of the mean, so that parts of a batch add up: over all
            processes they sum to 1 in the labelled rows, and to at most 1 in the others.
        labelled: number B of labelled rows.
        scale: factors of the labelled and the unlabelled loss in the total loss.
        dropout: for each of the four encoder maps a factor per row and channel, float [R,C_i]; None = no dropout.
        head_dropout: the same for the head's fused map, float [R,D].
    """

    image_RCHW: Tensor
    label_RHW: Tensor
    weight_RHW: Tensor
    labelled: int
    scale: tuple[float, float]
    dropout: tuple[Tensor, ...] | None = None
    head_dropout: Tensor | None = None
