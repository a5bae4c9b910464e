"""Hierarchical networks with stages at strides 4, 8, 16 and 32, such as ResNet, ConvNeXt, PVT and EfficientNet."""

# B batch, C channels, H W pixels

from typing import Any

from torch import Tensor, nn

from trainer.models.encoder_base import Encoder

STRIDES = (4, 8, 16, 32)


class Hierarchical(Encoder):
    """A timm network in feature-extraction mode; its maps are the last outputs at each stride."""

    def __init__(self, stages: Any, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.stages = stages
        self.channels, self.strides = tuple(stages.feature_info.channels()), tuple(stages.feature_info.reduction())
        self.size_multiple, self.mean, self.std = self.strides[-1], mean, std

    def blocks(self) -> list[nn.Module]:
        """See Encoder."""
        return repeated_blocks(self.stages)

    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        """See Encoder."""
        return list(self.stages(image_BCHW))


def repeated_blocks(network: nn.Module) -> list[nn.Module]:
    """The outermost members of Sequentials and ModuleLists that have several parts with parameters.

    These are a ResNet's bottlenecks or a ConvNeXt's blocks, but not the stem's single convolutions and norms.
    """
    blocks = []
    for child in network.children():
        if _is_list(network) and not _is_list(child) and _is_composite(child):
            blocks.append(child)
        else:
            blocks += repeated_blocks(child)
    return blocks


def _is_list(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential | nn.ModuleList)


def _is_composite(module: nn.Module) -> bool:
    return sum(any(True for _ in child.parameters()) for child in module.children()) > 1
