"""Changes to single timm modules: padding for maps of any size, and forms that ONNX export can express.

Each class overrides one method and keeps the parameters with their names, so weights load as into timm's own.
"""

# B batch, H W cells of a map, D channels

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.pool2d_same import AvgPool2dSame, MaxPool2dSame
from timm.layers.pos_embed_sincos import RotaryEmbeddingDinoV3
from timm.layers.std_conv import ScaledStdConv2dSame, StdConv2dSame
from timm.models import davit, hiera, hieradet_sam2, maxxvit, twins, vision_transformer_sam
from timm.models import swin_transformer as swin
from timm.models import swin_transformer_v2 as swin_v2
from timm.models import swin_transformer_v2_cr as swin_v2_cr
from torch import Tensor, nn

from trainer.models.encoders.windows import join, pad, split, windowed


def adapt(network: nn.Module) -> None:
    """Replace the classes of timm's modules, in place, by those of this file."""
    for module in network.modules():
        if replacement := REPLACEMENTS.get(type(module)):
            module.__class__ = replacement


def _padded(timm_class: Any, method: str, size: str, *, channels_last: bool = True) -> type:
    """A subclass whose attention in windows gets a map that is filled with zeros to a multiple of its attribute `size`.

    MaxViT's has no padding. Swin's pads after the shift; like this it pads before, as Swin's authors do for
    segmentation.
    """

    def attend(self: Any, map_BHWD: Tensor) -> Tensor:
        if not channels_last:
            map_BHWD = map_BHWD.permute(0, 2, 3, 1)
        height, width = map_BHWD.shape[1:3]
        padded = pad(map_BHWD, getattr(self, size))
        padded = padded if channels_last else padded.permute(0, 3, 1, 2)
        mixed: Tensor = getattr(timm_class, method)(self, padded)
        rows, columns = (1, 2) if channels_last else (2, 3)
        return mixed.narrow(rows, 0, height).narrow(columns, 0, width)

    return type(timm_class.__name__, (timm_class,), {method: attend})


def _swin(timm_class: Any, method: str) -> type:
    padded = _padded(timm_class, method, "window_size")
    return type(timm_class.__name__, (_Shifted, padded), {})


class _Shifted:
    """Swin's mask between the parts of a shifted window, without timm's assignments to nine slices."""

    window_size: tuple[int, int]
    shift_size: tuple[int, int]

    def get_attn_mask(self, map_BHWD: Tensor) -> Tensor | None:
        """For each window -100 for pairs of cells that do not lie side by side in the map, else 0: [W,N,N]."""
        if not any(self.shift_size):
            return None
        row_H, column_W = (
            (index > index[-1] - window).int() + (index > index[-1] - shift)
            for index, window, shift in zip(_cells(map_BHWD), self.window_size, self.shift_size, strict=True)
        )
        part_1HW1 = (3 * row_H[:, None] + column_W)[None, :, :, None]
        part_WN = split(part_1HW1, self.window_size).flatten(1)
        return (part_WN[:, None] != part_WN[:, :, None]).to(map_BHWD.dtype) * -100


def _cells(map_BHWD: Tensor) -> tuple[Tensor, Tensor]:
    height, width = map_BHWD.shape[1:3]
    return torch.arange(height, device=map_BHWD.device), torch.arange(width, device=map_BHWD.device)


class _Conv2dSame(Conv2dSame):
    """TensorFlow's "same" padding for sides that are multiples of the stride, as an encoder's always are.

    Its width is then fixed; timm computes it from the map's size, which takes minutes in an export.
    """

    def forward(self, map_BDHW: Tensor) -> Tensor:
        return nn.Conv2d.forward(self, F.pad(map_BDHW, _same_padding(self)))


class _MaxPool2dSame(MaxPool2dSame):
    def forward(self, map_BDHW: Tensor) -> Tensor:
        padded_BDHW = F.pad(map_BDHW, _same_padding(self), value=-torch.inf)
        return nn.MaxPool2d.forward(self, padded_BDHW)  # type: ignore[no-any-return]


class _AvgPool2dSame(AvgPool2dSame):
    def forward(self, map_BDHW: Tensor) -> Tensor:
        return nn.AvgPool2d.forward(self, F.pad(map_BDHW, _same_padding(self)))


class _StandardizedSame:
    """A convolution with standardized weights, whose class pads by itself only if `same_pad` is set."""

    same_pad: bool

    def forward(self, map_BDHW: Tensor) -> Tensor:
        self.same_pad = False
        return super().forward(F.pad(map_BDHW, _same_padding(self)))  # type: ignore[misc, no-any-return]  # timm's


class _DINOv3Rotary(RotaryEmbeddingDinoV3):
    """DINOv3's rotary embedding; timm divides by a side as a Python float, which an export makes a constant."""

    def _create_embed(self, feat_shape: list[int], no_aug: bool = False) -> Tensor:
        if not torch.compiler.is_exporting():
            return super()._create_embed(feat_shape, no_aug)
        if (self.normalize_coords, self.grid_indexing) != ("separate", "ij"):
            raise NotImplementedError("only DINOv3's own rotary embedding can be exported; set no rope_* option")
        indices = [torch.arange(side) for side in feat_shape]
        axes = [2 * (index + 0.5 + self.grid_offset) / (index[-1] + 1) - 1 for index in indices]
        grid_Nx2 = torch.stack(torch.meshgrid(axes, indexing="ij"), dim=-1).flatten(0, 1)
        return torch.cat(self._get_pos_embed_from_coords(grid_Nx2), dim=-1)


class _SAMAttention(vision_transformer_sam.Attention):
    """SAM's attention with batch and heads on two axes; timm's fixes the number of relative positions in an export."""

    def forward(self, map_BHWD: Tensor) -> Tensor:
        batch, height, width, _ = map_BHWD.shape
        tokens = height * width
        qkv = self.qkv(map_BHWD.reshape(batch, tokens, -1)).reshape(batch, tokens, 3, self.num_heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind()
        query, key = self.q_norm(query), self.k_norm(key)
        query_BGHWC = query.unflatten(2, (height, width))
        rows = torch.einsum("bghwc,hkc->bghwk", query_BGHWC, _relative(self.rel_pos_h, height))
        columns = torch.einsum("bghwc,wkc->bghwk", query_BGHWC, _relative(self.rel_pos_w, width))
        bias = (rows[..., None] + columns[..., None, :]).reshape(batch, self.num_heads, tokens, tokens)
        if torch.compiler.is_exporting():  # the exporter loses the order of the axes of the function below
            mixed = (query * self.scale @ key.transpose(-2, -1) + bias).softmax(dim=-1) @ value
        else:
            dropout = self.attn_drop.p if self.training else 0.0
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout)
        mixed = mixed.transpose(1, 2).reshape(batch, height, width, -1)
        return self.proj_drop(self.proj(mixed))  # type: ignore[no-any-return]


class _SAMBlock(vision_transformer_sam.Block):
    """SAM's block, whose windows are split for export."""

    def forward(self, map_BHWD: Tensor) -> Tensor:
        (batch, height, width, _), window = map_BHWD.shape, (self.window_size, self.window_size)
        mixed = self.norm1(map_BHWD)
        mixed = join(self.attn(split(mixed, window)), batch, (height, width)) if self.window_size else self.attn(mixed)
        map_BHWD = map_BHWD + self.drop_path1(self.ls1(mixed))
        return map_BHWD + self.drop_path2(self.ls2(self.mlp(self.norm2(map_BHWD))))  # type: ignore[no-any-return]


class _DaViTBlock(davit.SpatialBlock):
    """DaViT's attention in windows, split for export."""

    def forward(self, map_BDHW: Tensor) -> Tensor:
        map_BHWD = self.cpe1(map_BDHW).permute(0, 2, 3, 1)
        mixed = windowed(self.attn, self.norm1(map_BHWD), self.window_size)
        map_BDHW = self.cpe2((map_BHWD + self.drop_path1(mixed)).permute(0, 3, 1, 2))
        if self.mlp is not None:
            map_BHWD = map_BDHW.permute(0, 2, 3, 1)
            map_BHWD = map_BHWD + self.drop_path2(self.mlp(self.norm2(map_BHWD)))
            map_BDHW = map_BHWD.permute(0, 3, 1, 2)
        return map_BDHW


class _SAM2Block(hieradet_sam2.MultiScaleBlock):
    """A block of SAM 2's Hiera, whose windows are split for export and may be halved by its attention."""

    def forward(self, map_BHWD: Tensor) -> Tensor:
        mixed, shortcut = self.norm1(map_BHWD), map_BHWD
        if self.dim != self.dim_out:
            shortcut = self.proj(mixed)
            if self.pool is not None:
                shortcut = self.pool(shortcut.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        if self.is_windowed:
            mixed = self.attn(split(mixed, self.window_size))
            mixed = join(mixed, map_BHWD.shape[0], (shortcut.shape[1], shortcut.shape[2]))
        else:
            mixed = self.attn(mixed)
        map_BHWD = shortcut + self.drop_path1(self.ls1(mixed))
        return map_BHWD + self.drop_path2(self.ls2(self.mlp(self.norm2(map_BHWD))))  # type: ignore[no-any-return]


class _TwinsAttention(twins.LocallyGroupedAttn):
    """Twins' attention in windows over four axes; ONNX has none over timm's five."""

    def forward(self, token_BND: Tensor, size: tuple[int, int]) -> Tensor:
        map_BHWD = token_BND.reshape(token_BND.shape[0], *size, token_BND.shape[-1])
        mixed = windowed(self._attend, map_BHWD, (self.ws, self.ws)).flatten(1, 2)
        return self.proj_drop(self.proj(mixed))  # type: ignore[no-any-return]

    def _attend(self, token_WND: Tensor) -> Tensor:
        qkv = self.qkv(token_WND).reshape(*token_WND.shape[:2], 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        dropout = self.attn_drop.p if self.training else 0.0
        query, key, value = qkv.unbind()
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        return mixed.transpose(1, 2).flatten(2)


def _separate(timm_class: Any) -> type:
    """A subclass without the fused operation in an export, which has none over five axes or with a bias."""

    def forward(self: Any, *inputs: Any, **named: Any) -> Tensor:
        self.fused_attn = not torch.compiler.is_exporting()
        mixed: Tensor = timm_class.forward(self, *inputs, **named)
        return mixed

    return type(timm_class.__name__, (timm_class,), {"forward": forward})


def _relative(table_LC: Tensor, side: int) -> Tensor:
    """Vectors of the offsets between `side` rows or columns, [side,side,C], from a table of 2 * side' - 1 offsets."""
    if not isinstance(side, int) or table_LC.shape[0] != 2 * side - 1:  # in an export, side is a symbol
        table_LC = F.interpolate(table_LC.T[None], size=2 * side - 1, mode="linear")[0].T
    index = torch.arange(side, device=table_LC.device)
    return table_LC[index[:, None] - index[None] + side - 1]


def _same_padding(module: Any) -> list[int]:
    """Cells to the left, right, top and bottom; none for a module that pads by itself."""
    pads = []
    for axis in (1, 0):
        kernel, stride, dilation = (_pair(each)[axis] for each in _window(module))
        total = 0 if _pair(module.padding)[axis] else max((kernel - 1) * dilation + 1 - stride, 0)
        pads += [total // 2, total - total // 2]
    return pads


def _window(module: Any) -> Sequence[int | tuple[int, int]]:
    """Kernel size, stride and dilation of a convolution or pooling."""
    return module.kernel_size, module.stride, getattr(module, "dilation", 1)


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def _standardized(timm_class: Any) -> type:
    return type(timm_class.__name__, (_StandardizedSame, timm_class), {})


REPLACEMENTS: dict[type, type] = {
    Conv2dSame: _Conv2dSame,
    AvgPool2dSame: _AvgPool2dSame,
    MaxPool2dSame: _MaxPool2dSame,
    StdConv2dSame: _standardized(StdConv2dSame),
    ScaledStdConv2dSame: _standardized(ScaledStdConv2dSame),
    swin.SwinTransformerBlock: _swin(swin.SwinTransformerBlock, "_attn"),
    swin_v2.SwinTransformerV2Block: _swin(swin_v2.SwinTransformerV2Block, "_attn"),
    swin_v2_cr.SwinTransformerV2CrBlock: _swin(swin_v2_cr.SwinTransformerV2CrBlock, "_shifted_window_attn"),
    maxxvit.PartitionAttentionCl: _padded(maxxvit.PartitionAttentionCl, "_partition_attn", "partition_size"),
    maxxvit.ParallelPartitionAttention: _padded(
        maxxvit.ParallelPartitionAttention, "_partition_attn", "partition_size"
    ),
    maxxvit.PartitionAttention2d: _padded(
        maxxvit.PartitionAttention2d, "_partition_attn", "partition_size", channels_last=False
    ),
    RotaryEmbeddingDinoV3: _DINOv3Rotary,
    davit.SpatialBlock: _DaViTBlock,
    hiera.MaskUnitAttention: _separate(hiera.MaskUnitAttention),
    maxxvit.Attention2d: _separate(maxxvit.Attention2d),
    maxxvit.AttentionCl: _separate(maxxvit.AttentionCl),
    hieradet_sam2.MultiScaleBlock: _SAM2Block,
    twins.LocallyGroupedAttn: _TwinsAttention,
    vision_transformer_sam.Attention: _SAMAttention,
    vision_transformer_sam.Block: _SAMBlock,
}
"""Class of this file by timm's class."""
