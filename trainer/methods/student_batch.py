"""What a method asks of the student in one step: images, what to say about them, and how much each pixel counts.

Every method of this package ends in the same form, so one loop computes every loss: a weighted cross-entropy over the
rows. The rows can be split into micro-batches at will, because all mixing lies behind them.
"""

# R rows, B labelled images, C channels, H W pixels

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class StudentBatch:
    """Rows for the student: first the labelled images, then the strong views.

    Attributes:
        image_RCHW: float, RGB, 0..1.
        label_RHW: int64, any class id where the weight is 0.
        weight_RHW: float32; over the labelled rows of all processes the sum is 1, over the others at most 1: the mean
            is in the weights, so that parts of a batch simply add up.
        labelled: how many rows B are labelled.
        scale: factor of the labelled and of the unlabelled loss in the loss that is minimised.
        dropout: for each of the four encoder maps a factor per row and channel, float [R,C_i]; None leaves them whole.
        head_dropout: likewise for the head's fused map, float [R,D].
    """

    image_RCHW: Tensor
    label_RHW: Tensor
    weight_RHW: Tensor
    labelled: int
    scale: tuple[float, float]
    dropout: tuple[Tensor, ...] | None = None
    head_dropout: Tensor | None = None
