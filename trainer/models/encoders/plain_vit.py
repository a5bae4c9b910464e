"""Plain vision transformers such as DINOv2, DINOv3, DeiT, CLIP's and SAM's: one stride in all blocks.

The maps are the outputs of four blocks after the final norm, without class token and registers (UniMatch V2,
arXiv 2410.10777, section 5.1; DPT, arXiv 2103.13413). Deviation: without a norm in networks that have it only after a
classifier's pooling, such as BEiT and EVA-02.
"""

# B batch, C channels, H W pixels, h w patches, N tokens, D channels

import math
from typing import Any

import torch
from torch import Tensor, nn

from trainer.models.encoders.encoder_base import LEVELS, Encoder
from trainer.models.encoders.position_embedding import resample


class PlainViT(Encoder):
    """A timm ViT, read by its own `forward_intermediates`."""

    def __init__(self, vit: Any) -> None:
        super().__init__()
        patch, width = (int(vit.feature_info[0][each]) for each in ("reduction", "num_chs"))
        self.output_blocks = output_blocks(len(vit.blocks))
        # Deviation: SAM's ViT (arXiv 2304.02643) has a neck for its mask decoder instead of a final norm. The neck is
        # left out, and the maps have no norm.
        self.normed = hasattr(vit, "norm")
        vit.prune_intermediate_layers(sorted(set(self.output_blocks)), prune_norm=not self.normed, prune_head=True)
        self.vit = vit
        self.channels, self.strides, self.size_multiple = (width,) * LEVELS, (patch,) * LEVELS, patch
        self.mean, self.std = tuple(vit.default_cfg["mean"]), tuple(vit.default_cfg["std"])

    def blocks(self) -> list[nn.Module]:
        """See Encoder."""
        return list(self.vit.blocks)

    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        """See Encoder."""
        distinct = sorted(set(self.output_blocks))
        maps = self.vit.forward_intermediates(
            image_BCHW, indices=distinct, norm=self.normed, output_fmt="NCHW", intermediates_only=True
        )
        return [maps[distinct.index(block)] for block in self.output_blocks]


class DINOv2(PlainViT):
    """DINOv2 without registers, with the authors' resampling of the position embedding."""

    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        """See Encoder."""
        vit = self.vit
        patch_BhwD = vit.patch_embed(image_BCHW)
        height, width = patch_BhwD.shape[1:3]
        token_BND = vit.norm_pre(vit.pos_drop(self._with_positions(patch_BhwD)))
        map_by_block = {}
        for index, block in enumerate(vit.blocks):
            token_BND = block(token_BND)
            if index in self.output_blocks:
                patch_BND = vit.norm(token_BND)[:, vit.num_prefix_tokens :]
                map_by_block[index] = patch_BND.unflatten(1, (height, width)).permute(0, 3, 1, 2).contiguous()
        return [map_by_block[block] for block in self.output_blocks]

    def _with_positions(self, patch_BhwD: Tensor) -> Tensor:
        """Class token and patches with their position embeddings, [B,1+h*w,D]."""
        height, width = patch_BhwD.shape[1:3]
        class_1D, table_ND = self.vit.pos_embed[0].split([1, self.vit.patch_embed.num_patches])
        table_hwD = resample(table_ND.unflatten(0, self.vit.patch_embed.grid_size), height, width)
        class_B1D = (self.vit.cls_token + class_1D).expand(patch_BhwD.shape[0], -1, -1)
        return torch.cat([class_B1D, (patch_BhwD + table_hwD).flatten(1, 2)], dim=1)


def output_blocks(depth: int) -> tuple[int, ...]:
    """Blocks that the head uses: the ends of quarters, [2,5,8,11] of 12; of 24 the authors' [4,11,17,23]."""
    if depth == 24:
        return 4, 11, 17, 23
    return tuple(math.ceil((level + 1) * depth / LEVELS) - 1 for level in range(LEVELS))
