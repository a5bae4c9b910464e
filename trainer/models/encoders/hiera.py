"""Hiera (arXiv 2306.00989) for images of any size.

timm's network fixes the order of its tokens and its position embedding for one image size; here both follow the image.
Hiera orders its tokens by their place in a unit of 8x8 first, so that the maximum of four neighbours is the maximum of
four quarters of the sequence.
"""

# B batch, h w patches, cells of a stage, N = h * w tokens, D channels

from typing import Any

import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor, nn

from trainer.models.encoders.encoder_base import Encoder


class Hiera(Encoder):
    """A timm Hiera; its maps are the outputs of its four stages.

    Its position embedding is resampled as timm does it: the variants "abswin" repeat the part within a unit and
    resample the rest (arXiv 2311.05613), which suits other image sizes better than resampling the whole.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        network.reset_classifier(0, reset_other=True)
        self.network = network
        self.channels = tuple(stage["num_chs"] for stage in network.feature_info)
        self.strides = tuple(stage["reduction"] for stage in network.feature_info)
        self.size_multiple = network.patch_stride[0] * network.mask_unit_size[0]
        self.mean, self.std = tuple(network.default_cfg["mean"]), tuple(network.default_cfg["std"])

    def blocks(self) -> list[nn.Module]:
        """See Encoder."""
        return list(self.network.blocks)

    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        """See Encoder."""
        network, halvings = self.network, self.network.q_pool
        height, width = (side // network.patch_stride[0] for side in image_BCHW.shape[-2:])
        token_BND = network.patch_embed(image_BCHW) + self._positions(height, width)
        token_BND = by_place_in_unit(token_BND, (height, width), halvings)
        maps = []
        for index, block in enumerate(network.blocks):
            token_BND = block(token_BND)
            if index in network.stage_ends:
                maps.append(as_map(token_BND, (height, width), halvings).permute(0, 3, 1, 2))
                height, width, halvings = height // 2, width // 2, halvings - 1
        return maps

    def _positions(self, height: int, width: int) -> Tensor:
        """Position embedding of height x width patches, [1,N,D]."""
        network = self.network
        if network.pos_embed_win is None:
            grid = network.tokens_spatial_shape
            resized: Tensor = resample_abs_pos_embed(network.pos_embed, [height, width], grid, num_prefix_tokens=0)
            return resized
        unit_height, unit_width = network.mask_unit_size
        unit_1Dhw: Tensor = network.pos_embed_win.repeat(1, 1, height // unit_height, width // unit_width)
        rest_1Dhw = F.interpolate(network.pos_embed, (height, width), mode="bicubic", antialias=True)
        return (rest_1Dhw + unit_1Dhw).flatten(2).transpose(1, 2)


def by_place_in_unit(token_BND: Tensor, size: tuple[int, int], halvings: int) -> Tensor:
    """Reorder tokens [B,N,D] of rows and columns: first by the lowest bits of row and column, then by the next ones."""
    batch, _, channels = token_BND.shape
    map_BhwD = token_BND.reshape(batch, *size, channels)
    for _ in range(halvings):
        # Both lowest bits move in front: [B, h/2, 2, w/2, 2, D] to [B * 2 * 2, h/2, w/2, D].
        height, width = map_BhwD.shape[1:3]
        map_BhwD = map_BhwD.reshape(-1, height // 2, 2, width // 2, 2, channels)
        map_BhwD = map_BhwD.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
    return map_BhwD.reshape(batch, -1, channels)


def as_map(token_BND: Tensor, size: tuple[int, int], halvings: int) -> Tensor:
    """The inverse of `by_place_in_unit`: [B,N,D] to [B,h,w,D]."""
    height, width = (side // 2**halvings for side in size)
    map_BhwD = token_BND.reshape(-1, height, width, token_BND.shape[-1])
    for _ in range(halvings):
        _, height, width, channels = map_BhwD.shape
        map_BhwD = map_BhwD.reshape(-1, 2, 2, height, width, channels).permute(0, 3, 1, 4, 2, 5)
        map_BhwD = map_BhwD.reshape(-1, 2 * height, 2 * width, channels)
    return map_BhwD
