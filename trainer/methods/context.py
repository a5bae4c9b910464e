"""The inputs of a method besides the two batches."""

# K classes

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
        teacher: the network that labels the weak views, in eval mode.
        channels: number of channels of the encoder's four maps.
        head_width: number of channels of the head's fused map.
        recipe: the resolved recipe.
        ignore_index: the mask value of pixels that do not count.
        class_weights_K: weight of each class in the labelled loss, float on the device; None = 1.
        generator: CPU generator of all random choices of the step. They are drawn for the batch of all processes, so
            they do not depend on the number of processes.
        local_rows: this process's rows of the unlabelled batch of all processes.
        total: sums a small tensor over all processes.
        thresholds: adaptive thresholds; None = the recipe's confidence_threshold.
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
