"""BEiT (arXiv 2106.08254) and BEiT v2 (arXiv 2208.06366) for images of any size.

Each block has a table of biases for the 27x27 offsets between 14x14 patches. The authors resample it once for another
image size: close offsets keep their distance, and the distance between the others grows by a constant factor, so that
the table covers the image. Here the same happens for each image. A smaller image uses the centre of the table.

Deviation: between two entries of the table the bias is linear, in place of the authors' cubic spline.
"""

# B batch, h w patches, N = h * w, T = 1 + N tokens, G heads, D channels
# S side of the trained grid, O = 2 * S - 1 offsets

from typing import Any

import torch
from timm.models import beit
from torch import Tensor

from trainer.models.encoders.encoder_base import EncoderError
from trainer.models.encoders.plain_vit import PlainViT
from trainer.models.encoders.position_embedding import full_precision

RATES = 2048
"""Growth rates of the distance between offsets that are tried, between 1 and 2."""


class BEiT(PlainViT):
    """A timm BEiT with relative position biases in each block. Raises EncoderError for one with other positions."""

    def __init__(self, vit: Any) -> None:
        if vit.pos_embed is not None or vit.rel_pos_bias is not None:
            keys = "use_abs_pos_emb and use_shared_rel_pos_bias"
            raise EncoderError(f"BEiT is supported with its own positions only; remove {keys} from encoder_options")
        super().__init__(vit)
        vit.patch_embed.strict_img_size = False
        for block in vit.blocks:
            block.attn.__class__ = ResampledBias

    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        """See Encoder."""
        vit, patch = self.vit, self.size_multiple
        height, width = (side // patch for side in image_BCHW.shape[-2:])
        offsets = tuple(
            offset_weights(length, side, image_BCHW.device)
            for length, side in zip((height, width), vit.patch_embed.grid_size, strict=True)
        )
        patch_BND = vit.patch_embed(image_BCHW)
        token_BTD = vit.pos_drop(torch.cat([vit.cls_token.expand(patch_BND.shape[0], -1, -1), patch_BND], dim=1))
        map_by_block = {}
        for index, block in enumerate(vit.blocks):
            token_BTD = block(token_BTD, shared_rel_pos_bias=offsets)
            if index in self.output_blocks:
                map_BhwD = vit.norm(token_BTD)[:, 1:].unflatten(1, (height, width))
                map_by_block[index] = map_BhwD.permute(0, 3, 1, 2).contiguous()
        return [map_by_block[block] for block in self.output_blocks]


class ResampledBias(beit.Attention):
    """timm's attention with its table of biases resampled to the image's patches."""

    def forward(self, x: Tensor, shared_rel_pos_bias: Any = None) -> Tensor:
        """Tokens [B,T,D] to the same; `shared_rel_pos_bias` are the offset weights of rows and columns."""
        rows_hhO, columns_wwO = shared_rel_pos_bias
        self.fused_attn = not torch.compiler.is_exporting()  # the exporter loses the order of its axes with a bias
        with full_precision(x.device.type):
            bias_GTT = self._resampled(rows_hhO, columns_wwO)
        return super().forward(x, shared_rel_pos_bias=bias_GTT[None])

    def _get_rel_pos_bias(self) -> Tensor:
        """Timm adds this to the bias that `forward` passes to it."""
        return self.relative_position_bias_table.new_zeros(())

    def _resampled(self, rows_hhO: Tensor, columns_wwO: Tensor) -> Tensor:
        """The biases of all pairs of tokens, [G,T,T]."""
        (height, _, rows), (width, _, columns) = rows_hhO.shape, columns_wwO.shape
        table_GO = self.relative_position_bias_table.T
        bias_GRC = rows_hhO.flatten(0, 1) @ table_GO[:, :-3].reshape(-1, rows, columns) @ columns_wwO.flatten(0, 1).T
        bias_GNN = bias_GRC.reshape(-1, height, height, width, width).transpose(2, 3)
        return _with_class_token(bias_GNN.reshape(-1, height * width, height * width), table_GO[:, -3:])


def _with_class_token(bias_GNN: Tensor, class_G3: Tensor) -> Tensor:
    """Add the biases from the class token to a patch, from a patch to it, and its own: [G,T,T]."""
    tokens = bias_GNN.shape[-1]
    to_patch_G11, from_patch_G11, own_G11 = class_G3[:, :, None, None].unbind(1)
    first_G1T = torch.cat([own_G11, to_patch_G11.expand(-1, 1, tokens)], dim=2)
    return torch.cat([first_G1T, torch.cat([from_patch_G11.expand(-1, tokens, 1), bias_GNN], dim=2)], dim=1)


def offset_weights(length: int, side: int, device: torch.device) -> Tensor:
    """Weight of each of the table's 2 * side - 1 offsets for each pair of `length` rows or columns, float32 [n,n,O]."""
    index_n = torch.arange(length, device=device)
    position_nn = table_position(index_n[:, None] - index_n[None], length, side)
    entry_O = torch.arange(1 - side, side, device=device)
    return (1 - (position_nn[..., None] - entry_O).abs()).clamp(min=0)


def table_position(offset: Tensor, length: int, side: int) -> Tensor:
    """Where in a table of the offsets -(side-1)..side-1 the offsets of `length` patches are found, float32.

    Entry k of the table stands for the offset 1 + q + ... + q^(k-1), with the smallest q >= 1 for which the last entry
    reaches the offset length - 1.
    """
    rate_R = 1 + torch.arange(1, RATES + 1, device=offset.device) / RATES
    reach_R = (rate_R ** (side - 1) - 1) / (rate_R - 1)
    largest = torch.arange(length, device=offset.device)[-1]  # a tensor, since an exported graph cannot branch
    rate = rate_R[(reach_R < largest).sum().clamp(max=RATES - 1)]
    grown = offset.sign() * (1 + offset.abs() * (rate - 1)).log() / rate.log()
    return torch.where(largest < side, offset.to(grown.dtype), grown.clamp(1 - side, side - 1))
