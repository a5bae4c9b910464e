"""The encoder interface, which does not depend on timm."""

# B batch, C channels, H W pixels

from abc import ABC, abstractmethod
from typing import Self

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from trainer.user_error import UserError

LEVELS = 4


class EncoderError(UserError):
    """A name, an option or a weights file that gives no usable encoder."""


class Encoder(nn.Module, ABC):
    """A network that computes four feature maps of an image.

    Attributes:
        channels: of each map, the finest first.
        strides: image pixels per map pixel, for each map.
        size_multiple: of the image's height and width, in pixels.
        mean, std: normalisation of RGB in 0..1 that the weights need.
        notes: what makes it less suited to segmentation than others, as clauses for the report.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    size_multiple: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    notes: tuple[str, ...] = ()
    frozen: bool = False
    norms_frozen: bool = False

    @property
    def hierarchical(self) -> bool:
        """Whether the maps form a pyramid."""
        return len(set(self.strides)) > 1

    @abstractmethod
    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        """Normalised images, float [B,3,H,W], to four maps [B,channels[i],H/strides[i],W/strides[i]]."""

    @abstractmethod
    def blocks(self) -> list[nn.Module]:
        """The repeated blocks, in forward order."""

    def layers(self) -> dict[str, int]:
        """The layer number of each parameter: 0 before the first block, 1, 2, ... for the blocks, then one more.

        Parameters between two blocks, such as a stage's downsampling, belong to the preceding block.
        """
        layer_by_id = {
            id(parameter): layer for layer, block in enumerate(self.blocks(), 1) for parameter in block.parameters()
        }
        last = max(layer_by_id.values(), default=0)
        layers, layer = {}, 0
        for name, parameter in self.named_parameters():
            after_last = 0 < layer == last and id(parameter) not in layer_by_id
            layer = layer_by_id.get(id(parameter), layer)
            layers[name] = last + 1 if after_last else layer
        return layers

    def compile_blocks(self, backend: str = "inductor") -> None:
        """Compile each block in place; equal blocks share the code, and state-dict names stay."""
        for block in self.blocks():
            block.compile(backend=backend)

    def freeze(self) -> None:
        """Turn gradients off and stay in eval mode, also after `train()`."""
        self.frozen = True
        self.requires_grad_(requires_grad=False)
        self.eval()

    def freeze_norms(self) -> None:
        """Keep the batch-norm statistics fixed, also after `train()`; their weights are still trained."""
        self.norms_frozen = True
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """As for any module, but frozen parts stay in eval mode."""
        super().train(mode and not self.frozen)
        if self.norms_frozen:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self
