"""Build an encoder from any timm model.

Blocks at one stride are a plain ViT, stages at strides 4, 8, 16 and 32 a hierarchical network; others are rejected.
"""

# B batch, C channels, H W pixels

import difflib
from collections.abc import Iterable
from typing import Any

import timm
import torch
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import Tensor

from trainer.models.encoder_base import Encoder, EncoderError
from trainer.models.hierarchical import STRIDES, Hierarchical
from trainer.models.plain_vit import DINOv2, PlainViT, SAMViT

__all__ = ["Encoder", "EncoderError", "build_encoder"]


def build_encoder(name: str, options: dict[str, Any] | None = None) -> Encoder:
    """Build the encoder of a timm model name with random weights; `options` go to timm's constructor.

    Parameters that no map depends on, such as DINOv2's mask token, do not require gradients, because
    DistributedDataParallel waits for a gradient of every parameter that does. Raises EncoderError if timm has no such
    model, it is of neither kind, or it accepts only one image size.
    """
    options = options or {}
    if not timm.is_model(name):
        near = ", ".join(difflib.get_close_matches(name, timm.list_models(), n=5)) or "none"
        raise EncoderError(f"timm has no model {name!r}; similar names: {near}")
    classifier = _classifier(name, options)
    reductions = [stage["reduction"] for stage in getattr(classifier, "feature_info", None) or []]
    has_blocks = hasattr(classifier, "blocks") and hasattr(classifier, "prune_intermediate_layers")
    is_plain = has_blocks and len(set(reductions)) == 1
    encoder = _plain(name, classifier) if is_plain else _hierarchical(name, options, reductions)
    used = _used_parameters(encoder, name)
    for parameter in encoder.parameters():
        parameter.requires_grad_(id(parameter) in used)
    return encoder


def _classifier(name: str, options: dict[str, Any]) -> Any:
    try:
        try:
            return timm.create_model(name, pretrained=False, dynamic_img_size=True, **options)
        except TypeError:
            return timm.create_model(name, pretrained=False, **options)
    except TypeError as error:
        raise EncoderError(f"{name}: timm does not accept model.encoder_options: {error}; correct them") from error


def _plain(name: str, classifier: Any) -> PlainViT:
    if isinstance(classifier, VisionTransformerSAM):
        return SAMViT(classifier)
    # By name, since timm uses one class for many ViTs. DINOv2 with registers resamples positions as timm does.
    is_dinov2 = name.partition(".")[0].endswith("_dinov2") and classifier.reg_token is None
    return DINOv2(classifier) if is_dinov2 else PlainViT(classifier)


def _hierarchical(name: str, options: dict[str, Any], reductions: list[int]) -> Hierarchical:
    if missing := set(STRIDES) - set(reductions):
        raise EncoderError(
            f"{name}: is not a plain ViT and has no stage at stride {min(missing)}; choose an encoder with stages at "
            "strides 4, 8, 16 and 32"
        )
    indices = tuple(len(reductions) - 1 - reductions[::-1].index(stride) for stride in STRIDES)
    try:
        stages: Any = timm.create_model(name, pretrained=False, features_only=True, out_indices=indices, **options)
    except (RuntimeError, AttributeError, TypeError) as error:
        reason = f"timm cannot extract feature maps from it: {error}; choose another encoder"
        raise EncoderError(f"{name}: {reason}") from error
    return Hierarchical(stages, tuple(stages.default_cfg["mean"]), tuple(stages.default_cfg["std"]))


def _used_parameters(encoder: Encoder, name: str) -> set[int]:
    """Run the encoder, check the shapes of its maps, and return the ids of the parameters that they depend on."""
    height, width = 2 * encoder.size_multiple, 3 * encoder.size_multiple
    shapes = zip(encoder.channels, encoder.strides, strict=True)
    expected = [(channels, height // stride, width // stride) for channels, stride in shapes]
    device = next(encoder.parameters()).device
    try:
        with torch.enable_grad():
            maps = encoder.eval()(torch.zeros(1, 3, height, width, device=device))
    except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise EncoderError(f"{name}: does not accept images of any size ({error}); choose another encoder") from error
    found = [tuple(map_BCHW.shape[1:]) for map_BCHW in maps]
    if found != expected:
        raise EncoderError(f"{name}: its maps are {found}, expected {expected}; choose another encoder")
    encoder.train()
    return _leaves(maps)


def _leaves(outputs: Iterable[Tensor]) -> set[int]:
    """Ids of the parameters that the outputs depend on, from the autograd graph."""
    nodes = [output.grad_fn for output in outputs]
    seen, leaves = set(), set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            leaves.add(id(node.variable))
        nodes += [parent for parent, _ in node.next_functions]
    return leaves
