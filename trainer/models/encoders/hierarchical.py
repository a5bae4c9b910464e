"""Hierarchical networks with stages at strides 4, 8, 16 and 32, such as ResNet, ConvNeXt, Swin and EfficientNet."""

# B batch, C channels, H W pixels

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trainer.models.dpt import resize
from trainer.models.encoders.encoder_base import Encoder

STRIDES = (4, 8, 16, 32)


class Hierarchical(Encoder):
    """A timm network in feature-extraction mode; its maps are the last outputs at each stride.

    Deviation: where the network has no map of a stride, or maps of other sides, as without padding, the map of the
    nearest stride is resized bilinearly. `notes` name these strides.

    Args:
        stages: timm's network.
        sources: for each of STRIDES the position of the output that is used.
        only_size: height and width of the images, if the network takes no others.

    Raises RuntimeError, AssertionError or ValueError of timm if the network does not run on such images.
    """

    def __init__(self, stages: Any, sources: Sequence[int], only_size: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.stages, self.sources, self.strides = stages, tuple(sources), STRIDES
        self.channels_last = getattr(stages, "output_fmt", "NCHW") == "NHWC"
        found = stages.feature_info.reduction()
        self.channels = tuple(stages.feature_info.channels()[source] for source in sources)
        self.mean, self.std = tuple(stages.default_cfg["mean"]), tuple(stages.default_cfg["std"])
        self.size_multiple = STRIDES[-1] if only_size else self._smallest_multiple()
        self.resized = self._other_sizes(only_size or (2 * self.size_multiple, 3 * self.size_multiple))
        self.notes = tuple(
            _note(stride, found[source])
            for stride, source, resized in zip(STRIDES, sources, self.resized, strict=True)
            if resized
        )

    def blocks(self) -> list[nn.Module]:
        """See Encoder."""
        return repeated_blocks(self.stages)

    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        """See Encoder."""
        maps, sides = self._outputs(image_BCHW), image_BCHW.shape[-2:]
        return [
            resize(map_BCHW, [side // stride for side in sides], align_corners=False) if resized else map_BCHW
            for map_BCHW, stride, resized in zip(maps, STRIDES, self.resized, strict=True)
        ]

    def _outputs(self, image_BCHW: Tensor) -> list[Tensor]:
        maps = self.stages(image_BCHW)
        if self.channels_last:
            maps = [map_BHWC.permute(0, 3, 1, 2) for map_BHWC in maps]
        return [maps[source] for source in self.sources]

    def _smallest_multiple(self) -> int:
        """The coarsest stride, or twice to four times it if unpadded convolutions do not fit into a smaller image."""
        for count in (1, 2, 3):
            try:
                self._run((count * STRIDES[-1], 2 * count * STRIDES[-1]))
            except RuntimeError:  # of a kernel that is larger than the map
                continue
            return count * STRIDES[-1]
        return 4 * STRIDES[-1]

    def _other_sizes(self, size: tuple[int, int]) -> tuple[bool, ...]:
        """For each stride whether the output has other sides than the image divided by the stride."""
        found = [tuple(map_BCHW.shape[-2:]) for map_BCHW in self._run(size)]
        return tuple(
            each != tuple(side // stride for side in size) for each, stride in zip(found, STRIDES, strict=True)
        )

    @torch.no_grad()
    def _run(self, size: tuple[int, int]) -> list[Tensor]:
        self.eval()
        maps = self._outputs(torch.zeros(1, 3, *size, device=next(self.stages.parameters()).device))
        self.train()
        return maps


def _note(stride: int, found: int) -> str:
    if found != stride:
        return f"its map at stride {stride} is resized from stride {found}"
    reason = f"it has another size than the image divided by {stride}, as without padding"
    return f"its map at stride {stride} is resized: {reason}"


def nearest_stages(reductions: Sequence[int]) -> list[int]:
    """For each of STRIDES the index of the last stage of that stride, or of the nearest one, the finer of two.

    Raises ValueError if there is no stage.
    """
    last = {stride: index for index, stride in enumerate(reductions)}
    return [last[min(sorted(last), key=lambda each: abs(math.log2(each / stride)))] for stride in STRIDES]


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
