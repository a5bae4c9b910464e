"""What the head needs of a network: four feature maps of an image, and a few facts about them.

Everything that knows timm stands behind this face; everything before it (segmenter, optimizer, exporter) sees no more
than what is written here.
"""

# B batch, C channels, H W pixels

from abc import ABC, abstractmethod
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

LEVELS = 4


class EncoderError(ValueError):
    """A name, an option or a weights file that gives no usable encoder; the message says which would."""


class Encoder(nn.Module, ABC):
    """Four feature maps of an image.

    Attributes:
        channels: width of each map, finest first.
        strides: pixels of the image to one of the map, for each map.
        size_multiple: height and width of the image must be multiples of this, in pixels.
        mean, std: per-channel statistics of RGB in 0..1 that the weights were trained with.
        frozen: whether `freeze` was called.
        norms_frozen: whether `freeze_norms` was called.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    size_multiple: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    frozen: bool = False
    norms_frozen: bool = False

    @property
    def hierarchical(self) -> bool:
        """Whether the maps already form a pyramid."""
        return len(set(self.strides)) > 1

    @abstractmethod
    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        """Normalised images, float [B,3,H,W], to four maps [B,channels[i],H/strides[i],W/strides[i]]."""

    @abstractmethod
    def blocks(self) -> list[nn.Module]:
        """The repeated blocks, in the order in which an image passes through them."""

    def layers(self) -> dict[str, int]:
        """The layer of each parameter: 0 = before the first block, 1.. = the blocks, the last = after the last block.

        What stands between two blocks, such as the downsampling before a stage, counts with the block before it.
        """
        layer_by_id = {
            id(parameter): layer for layer, block in enumerate(self.blocks(), 1) for parameter in block.parameters()
        }
        last = max(layer_by_id.values(), default=0)
        layers, layer = {}, 0
        for name, parameter in self.named_parameters():
            passed = 0 < layer == last and id(parameter) not in layer_by_id
            layer = layer_by_id.get(id(parameter), layer)
            layers[name] = last + 1 if passed else layer
        return layers

    def layer_of(self, name: str) -> int:
        """The layer of the parameter `name` (of `named_parameters`), as `layers` counts. Raises KeyError."""
        return self.layers()[name]

    def freeze(self) -> None:
        """No gradients, and evaluation mode for good: neither batch norm nor stochastic depth sees training again."""
        self.frozen = True
        self.requires_grad_(requires_grad=False)
        self.eval()

    def freeze_norms(self) -> None:
        """Batch norms keep their statistics for good; their weights are trained on."""
        self.norms_frozen = True
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """As of any module, but what is frozen stays in evaluation mode."""
        super().train(mode and not self.frozen)
        if self.norms_frozen:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self


def normalisation(encoder: Encoder) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation as float [3,1,1], of RGB in 0..1."""
    return torch.tensor(encoder.mean).view(3, 1, 1), torch.tensor(encoder.std).view(3, 1, 1)
