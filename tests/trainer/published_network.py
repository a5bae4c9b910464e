"""Reference network of UniMatch V2 (arXiv 2410.10777, section 5.1): functions of a state dict with the authors' names.

The equations of the ViT (arXiv 2010.11929), of DINOv2's additions (arXiv 2304.07193) and of the DPT head (arXiv
2103.13413), without modules, fused attention or dropout. The trainer's network is tested against it.
"""

# B batch, N tokens, D width, H W pixels, h w patches

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from torch import Tensor

PATCH, GRID, HEAD_WIDTH = 14, 37, 64


@dataclass(frozen=True)
class Size:
    width: int
    depth: int
    output_blocks: tuple[int, ...]
    features: int
    projections: tuple[int, int, int, int]
    gated: int = 0
    """Hidden width of a gated MLP; 0 = an MLP with GELU and a hidden width of 4 * width."""


SMALL = Size(384, 12, (2, 5, 8, 11), 64, (48, 96, 192, 384))
BASE = Size(768, 12, (2, 5, 8, 11), 128, (96, 192, 384, 768))
LARGE = Size(1024, 24, (4, 11, 17, 23), 256, (256, 512, 1024, 1024))
GIANT = Size(1536, 40, (9, 19, 29, 39), 384, (1536, 1536, 1536, 1536), gated=4096)


def random_state(size: Size, classes: int) -> dict[str, Tensor]:
    """Random weights under the authors' names, large enough that each of them changes the logits."""
    state = random_backbone(size)
    for name, shape in _head_shapes(size, classes).items():
        fan_in = shape[1] * shape[2] * shape[3] if len(shape) == 4 else 16
        state[name] = torch.randn(shape) * fan_in**-0.5
    return state


def random_backbone(size: Size, *, registers: int = 0) -> dict[str, Tensor]:
    """Random weights of DINOv2 under Meta's names with the prefix "backbone."."""
    width = size.width
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 1 + GRID * GRID, width),
        "mask_token": (1, width),
        "patch_embed.proj.weight": (width, 3, PATCH, PATCH),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    if registers:
        shapes["register_tokens"] = (1, registers, width)
    for block in range(size.depth):
        shapes |= {f"blocks.{block}.{name}": shape for name, shape in _block_shapes(size).items()}
    state = {}
    for name, shape in shapes.items():
        linear = name.endswith("weight") and len(shape) > 1
        scale = math.prod(shape[1:]) ** -0.5 if linear else 0.2
        shift = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        state[f"backbone.{name}"] = torch.randn(shape) * scale + shift
    return state


def _block_shapes(size: Size) -> dict[str, tuple[int, ...]]:
    width, inner = size.width, size.gated or 4 * size.width
    first, second = ("mlp.w12", "mlp.w3") if size.gated else ("mlp.fc1", "mlp.fc2")
    shapes: dict[str, tuple[int, ...]] = {f"ls{part}.gamma": (width,) for part in (1, 2)}
    shapes |= {f"norm{part}.{kind}": (width,) for part in (1, 2) for kind in ("weight", "bias")}
    out = 2 * inner if size.gated else inner
    linears = {"attn.qkv": (3 * width, width), "attn.proj": (width, width), first: (out, width), second: (width, inner)}
    for name, shape in linears.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes


def _head_shapes(size: Size, classes: int) -> dict[str, tuple[int, ...]]:
    width, (one, two, three, four) = size.features, size.projections
    shapes: dict[str, tuple[int, ...]] = {
        "resize_layers.0.weight": (one, one, 4, 4),
        "resize_layers.0.bias": (one,),
        "resize_layers.1.weight": (two, two, 2, 2),
        "resize_layers.1.bias": (two,),
        "resize_layers.3.weight": (four, four, 3, 3),
        "resize_layers.3.bias": (four,),
        "scratch.output_conv.0.weight": (width, width, 3, 3),
        "scratch.output_conv.0.bias": (width,),
        "scratch.output_conv.2.weight": (classes, width, 1, 1),
        "scratch.output_conv.2.bias": (classes,),
    }
    for level, narrow in enumerate((one, two, three, four)):
        shapes |= {f"projects.{level}.weight": (narrow, size.width, 1, 1), f"projects.{level}.bias": (narrow,)}
        shapes[f"scratch.layer{level + 1}_rn.weight"] = (width, narrow, 3, 3)
        fusion = f"scratch.refinenet{level + 1}"
        shapes |= {f"{fusion}.out_conv.weight": (width, width, 1, 1), f"{fusion}.out_conv.bias": (width,)}
        for unit in (f"{fusion}.resConfUnit{part}.conv{conv}" for part in (1, 2) for conv in (1, 2)):
            shapes |= {f"{unit}.weight": (width, width, 3, 3), f"{unit}.bias": (width,)}
    return {f"head.{name}": shape for name, shape in shapes.items()}


def feature_maps(state: dict[str, Tensor], size: Size, image_B3HW: Tensor) -> list[Tensor]:
    """Outputs of `size.output_blocks` after the final norm, each [B,D,h,w]."""
    w = {name.removeprefix("backbone."): value for name, value in state.items()}
    patch_BDhw = F.conv2d(image_B3HW, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=PATCH)
    height, width = patch_BDhw.shape[-2:]
    place_BDhw = _place(w["pos_embed"][:, 1:], height, width, registers="register_tokens" in w)
    token_BND = (patch_BDhw + place_BDhw).flatten(2).transpose(1, 2)
    first_11D = w["cls_token"] + w["pos_embed"][:, :1]
    prefix_1PD = torch.cat([first_11D, w["register_tokens"]], 1) if "register_tokens" in w else first_11D
    token_BND = torch.cat([prefix_1PD.expand(len(image_B3HW), -1, -1), token_BND], dim=1)
    maps = []
    for block in range(size.depth):
        prefix = f"blocks.{block}."
        token_BND = _block({key.removeprefix(prefix): w[key] for key in w if key.startswith(prefix)}, token_BND)
        if block in size.output_blocks:
            out_BND = _norm(token_BND, w["norm.weight"], w["norm.bias"])[:, prefix_1PD.shape[1] :]
            maps.append(out_BND.transpose(1, 2).reshape(len(image_B3HW), -1, height, width))
    return maps


def _place(table_1ND: Tensor, height: int, width: int, *, registers: bool) -> Tensor:
    table_1DGG = table_1ND.transpose(1, 2).reshape(1, -1, GRID, GRID)
    if (height, width) == (GRID, GRID):
        return table_1DGG
    if registers:
        return F.interpolate(table_1DGG, (height, width), mode="bicubic", antialias=True)
    factors = ((height + 0.1) / GRID, (width + 0.1) / GRID)
    return F.interpolate(table_1DGG, scale_factor=factors, mode="bicubic")


def _block(w: dict[str, Tensor], x_BND: Tensor) -> Tensor:
    normed_BND = _norm(x_BND, w["norm1.weight"], w["norm1.bias"])
    query, key, value = (
        part.reshape(*part.shape[:2], -1, HEAD_WIDTH).transpose(1, 2)
        for part in _linear(w, "attn.qkv", normed_BND).chunk(3, dim=-1)
    )
    attention = (query @ key.transpose(-1, -2) / HEAD_WIDTH**0.5).softmax(dim=-1)
    mixed_BND = _linear(w, "attn.proj", (attention @ value).transpose(1, 2).flatten(2))
    x_BND = x_BND + w["ls1.gamma"] * mixed_BND
    return x_BND + w["ls2.gamma"] * _mlp(w, _norm(x_BND, w["norm2.weight"], w["norm2.bias"]))


def _mlp(w: dict[str, Tensor], x_BND: Tensor) -> Tensor:
    if "mlp.w12.weight" in w:
        gate, inner = _linear(w, "mlp.w12", x_BND).chunk(2, dim=-1)
        return _linear(w, "mlp.w3", gate * gate.sigmoid() * inner)
    inner = _linear(w, "mlp.fc1", x_BND)
    return _linear(w, "mlp.fc2", inner * 0.5 * (1 + torch.erf(inner / 2**0.5)))


def _linear(w: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def _norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    scale = (centred.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt()
    return centred / scale * weight + bias


def head_logits(state: dict[str, Tensor], maps: list[Tensor]) -> Tensor:
    """The DPT head on four maps [B,D,h,w]; logits [B,K,8h,8w]."""
    w = {name.removeprefix("head."): value for name, value in state.items() if name.startswith("head.")}
    narrow = [F.conv2d(m, w[f"projects.{i}.weight"], w[f"projects.{i}.bias"]) for i, m in enumerate(maps)]
    narrow[0] = F.conv_transpose2d(narrow[0], w["resize_layers.0.weight"], w["resize_layers.0.bias"], stride=4)
    narrow[1] = F.conv_transpose2d(narrow[1], w["resize_layers.1.weight"], w["resize_layers.1.bias"], stride=2)
    narrow[3] = F.conv2d(narrow[3], w["resize_layers.3.weight"], w["resize_layers.3.bias"], stride=2, padding=1)
    levels = [F.conv2d(m, w[f"scratch.layer{i + 1}_rn.weight"], padding=1) for i, m in enumerate(narrow)]
    path = torch.zeros_like(levels[3])
    for number in (4, 3, 2, 1):
        fusion = f"scratch.refinenet{number}"
        level = levels[number - 1]
        path = path + (_unit(w, f"{fusion}.resConfUnit1", level) if number < 4 else level)
        path = _unit(w, f"{fusion}.resConfUnit2", path)
        height, width = levels[number - 2].shape[-2:] if number > 1 else (2 * side for side in path.shape[-2:])
        path = F.interpolate(path, (height, width), mode="bilinear", align_corners=True)
        path = F.conv2d(path, w[f"{fusion}.out_conv.weight"], w[f"{fusion}.out_conv.bias"])
    hidden = F.conv2d(path, w["scratch.output_conv.0.weight"], w["scratch.output_conv.0.bias"], padding=1)
    return F.conv2d(hidden.clamp(min=0), w["scratch.output_conv.2.weight"], w["scratch.output_conv.2.bias"])


def _unit(w: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    inner = F.conv2d(x.clamp(min=0), w[f"{name}.conv1.weight"], w[f"{name}.conv1.bias"], padding=1)
    return x + F.conv2d(inner.clamp(min=0), w[f"{name}.conv2.weight"], w[f"{name}.conv2.bias"], padding=1)


def logits(state: dict[str, Tensor], size: Size, image_B3HW: Tensor) -> Tensor:
    """Class logits [B,K,H,W] of normalised images whose sides are multiples of the patch."""
    found = head_logits(state, feature_maps(state, size, image_B3HW))
    return F.interpolate(found, image_B3HW.shape[-2:], mode="bilinear", align_corners=True)
