"""Interface of a training method: its inputs, besides two batches, and its result."""

# R rows, B labelled images, C channels, D channels of the head's fused map, K classes, H W pixels

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.config import Recipe
from trainer.methods.class_thresholds import ClassThresholds
from trainer.models.segmenter import Segmenter


@dataclass(frozen=True, slots=True)
class StepContext:
    """The inputs of one step besides its batches.

    Attributes:
        teacher: labels the weak views, in eval mode.
        channels: number of channels of the encoder's four maps.
        head_width: number of channels of the head's fused map.
        class_weights_K: weight of each class in the labelled loss, float on the device; None = 1.
        generator: on the CPU, for all random choices of the step, drawn for the batch of all processes.
        local_rows: this process's rows of that unlabelled batch.
        total: sums a small tensor over all processes.
        thresholds: adaptive thresholds; None = the recipe's fixed threshold.
    """

    teacher: Segmenter
    channels: tuple[int, ...]
    head_width: int
    recipe: Recipe
    ignore_index: int
    class_weights_K: Tensor | None
    generator: torch.Generator
    local_rows: range
    total: Callable[[Tensor], Tensor]
    thresholds: ClassThresholds | None = None


@dataclass(frozen=True, slots=True)
class StudentBatch:
    """Rows for the student: first the labelled images, then the strong views.

    The loss of every method is a weighted cross-entropy over these rows.

    Attributes:
        image_RCHW: float, RGB, 0..1.
        label_RHW: int64; any class id where the weight is 0.
        weight_RHW: float32; over all processes they sum to 1 in the labelled rows, and to at most 1 in the others.
        labelled: number B of labelled rows.
        scale: factors of the labelled and the unlabelled loss.
        dropout: for each of the four encoder maps a factor per row and channel, float [R,C_i].
        head_dropout: the same for the head's fused map, float [R,D].
    """

    image_RCHW: Tensor
    label_RHW: Tensor
    weight_RHW: Tensor
    labelled: int
    scale: tuple[float, float]
    dropout: tuple[Tensor, ...] | None = None
    head_dropout: Tensor | None = None
