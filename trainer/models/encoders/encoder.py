"""Build an encoder from a timm model.

Blocks at one stride are a plain ViT, stages at several strides a hierarchical network. Both take images of any size;
networks that do not run on tiles.
"""

# B batch, C channels, H W pixels

import difflib
from collections.abc import Iterable
from typing import Any

import timm
import timm.models
import torch
from timm.models.beit import Beit
from timm.models.hiera import Hiera as TimmHiera
from torch import Tensor

from trainer.models.encoders.beit import BEiT
from trainer.models.encoders.encoder_base import Encoder, EncoderError
from trainer.models.encoders.hiera import Hiera
from trainer.models.encoders.hierarchical import Hierarchical, nearest_stages
from trainer.models.encoders.plain_vit import DINOv2, PlainViT
from trainer.models.encoders.tiled import Tiled
from trainer.models.encoders.timm_modules import adapt

__all__ = ["Encoder", "EncoderError", "build_encoder"]

FIT = "choose another one, such as vit_small_patch14_dinov2, convnext_tiny or swin_tiny_patch4_window7_224"
SWIN = ("swin_transformer", "swin_transformer_v2", "swin_transformer_v2_cr")
REFUSALS = (AssertionError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)
"""What timm raises for networks and images that it does not support."""


def build_encoder(name: str, options: dict[str, Any] | None = None) -> Encoder:
    """Build the encoder of a timm model name with random weights; `options` go to timm's constructor.

    Parameters that no map depends on, such as DINOv2's mask token, do not require gradients, because
    DistributedDataParallel waits for a gradient of every parameter that does. Raises EncoderError if timm has no such
    model, or it gives no feature maps.
    """
    options = options or {}
    if not timm.is_model(name):
        near = ", ".join(difflib.get_close_matches(name, timm.list_models(), n=5)) or "none"
        raise EncoderError(f"timm has no model {name!r}; similar names: {near}")
    try:
        encoder = _encoder(name, options | _any_size_options(name, options))
        used = _used_parameters(encoder, name)
    except EncoderError:
        encoder = _tiled(name, options)
        used = _used_parameters(encoder, name)
    for parameter in encoder.parameters():
        parameter.requires_grad_(id(parameter) in used)
    return encoder


def _any_size_options(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Arguments by which timm's constructor makes a network that takes images of any size; {} if it has none."""
    if not timm.models.is_model_in_modules(name, SWIN):
        try:
            with torch.device("meta"):
                timm.create_model(name, pretrained=False, dynamic_img_size=True, **options)
        except TypeError:
            return {}
        return {"dynamic_img_size": True}
    # With always_partition, the last stage, whose map at 224 pixels is one window, also shifts its windows on larger
    # images. The window sizes are given, since timm then no longer reduces them to the map's.
    with torch.device("meta"):
        network = _create(name, options)
    stages = network.layers if hasattr(network, "layers") else network.stages
    windows = [stage.blocks[0].window_size for stage in stages]
    return {"strict_img_size": False, "always_partition": True, "window_size": windows}


def _create(name: str, options: dict[str, Any]) -> Any:
    try:
        return timm.create_model(name, pretrained=False, **options)
    except TypeError as error:
        raise EncoderError(f"{name}: timm does not accept model.encoder_options: {error}; correct them") from error


def _encoder(name: str, options: dict[str, Any], only_size: tuple[int, int] | None = None) -> Encoder:
    """The encoder of the network's kind; it does not yet prove that it takes images of any size."""
    classifier: Any = _create(name, options)
    reductions = [stage["reduction"] for stage in getattr(classifier, "feature_info", None) or []]
    has_blocks = hasattr(classifier, "blocks") and hasattr(classifier, "prune_intermediate_layers")
    try:
        if isinstance(classifier, TimmHiera):
            encoder: Encoder = Hiera(classifier)
        elif has_blocks and len(set(reductions)) == 1:
            encoder = _plain(name, classifier)
        else:
            encoder = _hierarchical(name, options, reductions, only_size)
    except REFUSALS as error:
        raise EncoderError(f"{name}: timm gives no feature maps of it ({error}); {FIT}") from error
    adapt(encoder)
    return encoder


def _plain(name: str, classifier: Any) -> PlainViT:
    if isinstance(classifier, Beit):
        return BEiT(classifier)
    # By name, since timm uses one class for many ViTs. DINOv2 with registers resamples positions as timm does.
    is_dinov2 = name.partition(".")[0].endswith("_dinov2") and classifier.reg_token is None
    return DINOv2(classifier) if is_dinov2 else PlainViT(classifier)


def _hierarchical(
    name: str, options: dict[str, Any], reductions: list[int], only_size: tuple[int, int] | None
) -> Hierarchical:
    stages_used = nearest_stages(reductions)
    indices = sorted(set(stages_used))
    stages: Any = timm.create_model(name, pretrained=False, features_only=True, out_indices=indices, **options)
    adapt(stages)
    return Hierarchical(stages, [indices.index(stage) for stage in stages_used], only_size)


def _tiled(name: str, options: dict[str, Any]) -> Tiled:
    """The encoder of a network that takes images of one size."""
    config = timm.get_pretrained_cfg(name)
    size = options.get("img_size", config.input_size[1:] if config else 224)
    height, width = (size, size) if isinstance(size, int) else size
    encoder = _encoder(name, options, only_size=(height, width))
    if height % encoder.size_multiple or width % encoder.size_multiple:
        raise EncoderError(f"{name}: takes images of {width}x{height} pixels only, no multiple of its stride; {FIT}")
    return Tiled(encoder, (height, width))


def _used_parameters(encoder: Encoder, name: str) -> set[int]:
    """Run the encoder, check the shapes of its maps, and return the ids of the parameters that they depend on."""
    height, width = 2 * encoder.size_multiple, 3 * encoder.size_multiple
    shapes = zip(encoder.channels, encoder.strides, strict=True)
    expected = [(channels, height // stride, width // stride) for channels, stride in shapes]
    device = next(encoder.parameters()).device
    try:
        with torch.enable_grad():
            maps = encoder.eval()(torch.zeros(1, 3, height, width, device=device))
    except REFUSALS as error:
        raise EncoderError(f"{name}: does not run on an image of {width}x{height} pixels ({error}); {FIT}") from error
    found = [tuple(map_BCHW.shape[1:]) for map_BCHW in maps]
    if found != expected:
        raise EncoderError(f"{name}: its maps are {found}, expected {expected}; {FIT}")
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
