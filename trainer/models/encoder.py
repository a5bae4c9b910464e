"""Any timm encoder behind one small face: an image in, four feature maps out.

What a network is, is read from its structure: blocks at one stride make a plain ViT, stages at strides 4, 8, 16 and 32
a hierarchical network; anything else is refused when it is built and not when it is trained.
"""

# B batch, C channels, H W pixels

import difflib
from collections.abc import Iterable
from typing import Any

import timm
import torch
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import Tensor

from trainer.models.feature_maps import Encoder, EncoderError, normalisation
from trainer.models.hierarchical import STRIDES, Hierarchical
from trainer.models.plain_vit import DINOv2, PlainViT, SAMViT, tapped_blocks

__all__ = ["Encoder", "EncoderError", "build_encoder", "normalisation", "tapped_blocks"]


def build_encoder(name: str, options: dict[str, Any] | None = None) -> Encoder:
    """Build an encoder with random weights (`load_encoder_weights` brings the real ones).

    Parameters on which no map depends, such as DINOv2's mask token, do not require gradients: the others all get one,
    as DistributedDataParallel wants it.

    Args:
        name: a timm model name.
        options: passed to timm's constructor, for example {"depth": 2}.

    Raises:
        EncoderError: timm has no such model, it has neither plain blocks nor stages at strides 4, 8, 16, 32, or it
            takes images of one size only.
    """
    options = options or {}
    if not timm.is_model(name):
        near = ", ".join(difflib.get_close_matches(name, timm.list_models(), n=5)) or "none"
        raise EncoderError(f"timm has no model {name!r}; names near it: {near}")
    whole = _whole(name, options)
    reductions = [stage["reduction"] for stage in getattr(whole, "feature_info", None) or []]
    encoder = _plain(name, whole) if _is_plain(whole, reductions) else _hierarchical(name, options, reductions)
    used = _try(encoder, name)
    for parameter in encoder.parameters():
        parameter.requires_grad_(id(parameter) in used)
    return encoder


def _whole(name: str, options: dict[str, Any]) -> Any:
    """The classifier as timm makes it, of dynamic image size where it can be."""
    try:
        try:
            return timm.create_model(name, pretrained=False, dynamic_img_size=True, **options)
        except TypeError:
            return timm.create_model(name, pretrained=False, **options)
    except TypeError as error:
        raise EncoderError(f"{name}: timm does not take these options: {error}") from error


def _is_plain(whole: Any, reductions: list[int]) -> bool:
    return len(set(reductions)) == 1 and hasattr(whole, "blocks") and hasattr(whole, "prune_intermediate_layers")


def _plain(name: str, whole: Any) -> PlainViT:
    if isinstance(whole, VisionTransformerSAM):
        return SAMViT(whole)
    # By name, since timm builds many ViTs from one class: with registers, DINOv2 resamples as timm does.
    architecture = name.partition(".")[0]
    return DINOv2(whole) if architecture.endswith("_dinov2") and whole.reg_token is None else PlainViT(whole)


def _hierarchical(name: str, options: dict[str, Any], reductions: list[int]) -> Hierarchical:
    if missing := set(STRIDES) - set(reductions):
        raise EncoderError(
            f"{name}: is no plain ViT and has no stage at stride {min(missing)}; choose an encoder with stages at "
            "strides 4, 8, 16 and 32"
        )
    indices = tuple(len(reductions) - 1 - reductions[::-1].index(stride) for stride in STRIDES)
    try:
        stages: Any = timm.create_model(name, pretrained=False, features_only=True, out_indices=indices, **options)
    except (RuntimeError, AttributeError, TypeError) as error:
        raise EncoderError(f"{name}: timm gives no feature maps of it: {error}; choose another encoder") from error
    return Hierarchical(stages, tuple(stages.default_cfg["mean"]), tuple(stages.default_cfg["std"]))


def _try(encoder: Encoder, name: str) -> set[int]:
    """Refuse what timm builds but what gives no four maps at any size; return the ids of the parameters in use."""
    height, width = 2 * encoder.size_multiple, 3 * encoder.size_multiple
    wanted = [
        (channels, height // stride, width // stride)
        for channels, stride in zip(encoder.channels, encoder.strides, strict=True)
    ]
    device = next(encoder.parameters()).device
    try:
        with torch.enable_grad():
            maps = encoder.eval()(torch.zeros(1, 3, height, width, device=device))
    except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise EncoderError(f"{name}: does not take images of any size ({error}); choose another encoder") from error
    found = [tuple(map_BCHW.shape[1:]) for map_BCHW in maps]
    if found != wanted:
        raise EncoderError(f"{name}: its maps are {found} where {wanted} were expected; choose another encoder")
    encoder.train()
    return _leaves(maps)


def _leaves(outputs: Iterable[Tensor]) -> set[int]:
    """Ids of the parameters on which the outputs depend, read from autograd's graph without a backward pass."""
    nodes = [output.grad_fn for output in outputs]
    seen, leaves = set(), set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            leaves.add(id(node.variable))
        nodes += [before for before, _ in node.next_functions]
    return leaves
