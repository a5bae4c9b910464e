"""Networks with stages at strides 4, 8, 16 and 32, such as ResNet, ConvNeXt, PVT and EfficientNet."""

# B batch, C channels, H W pixels

from typing import Any

from torch import Tensor, nn

from trainer.models.blocks import repeated_blocks
from trainer.models.feature_maps import Encoder

STRIDES = (4, 8, 16, 32)


class Hierarchical(Encoder):
    """A timm network built for feature extraction; its maps are the last outputs at each stride."""

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
