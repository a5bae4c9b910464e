"""What a method needs to know beyond the two batches."""

# K classes

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.config import Recipe
from trainer.methods.class_thresholds import ClassThresholds
from trainer.models.segmenter import Segmenter


@dataclass(frozen=True, slots=True)
class Context:
    """One step's surroundings.

    Attributes:
        teacher: who labels the weak views, in eval mode.
        channels: widths of the encoder's four maps.
        head_width: width of the head's fused map.
        recipe: the run's.
        ignore_index: the mask value that does not count.
        class_weights_K: what a pixel of each class counts in the labelled loss, float on the device; None = 1.
        generator: a CPU generator from which every random choice of the step is drawn, for the batch of all processes:
            the draws do not depend on how many there are.
        own: the rows of the unlabelled batch of all processes that this process holds.
        total: sum of a small tensor over all processes; alone, the tensor itself.
        thresholds: adaptive thresholds; None = the recipe's one.
    """

    teacher: Segmenter
    channels: tuple[int, ...]
    head_width: int
    recipe: Recipe
    ignore_index: int
    class_weights_K: Tensor | None
    generator: torch.Generator
    own: range
    total: Callable[[Tensor], Tensor]
    thresholds: ClassThresholds | None = None
