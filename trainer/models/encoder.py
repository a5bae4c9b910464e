"""Any timm encoder behind one small face: an image in, four feature maps out.

Plain ViTs give the outputs of four blocks after the final norm, all at the patch's stride, class token dropped
(UniMatch V2, section 5.1; DPT, arXiv 2103.13413). Hierarchical networks give their stages at strides 4, 8, 16 and 32.
"""

# B batch, C channels, H W pixels

import difflib
import math
from abc import ABC, abstractmethod
from typing import Any

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

LEVELS = 4
HIERARCHICAL_STRIDES = (4, 8, 16, 32)


class EncoderError(ValueError):
    """A name or an option that gives no usable encoder; the message says which would."""


class Encoder(nn.Module, ABC):
    """Four feature maps of an image.

    Attributes:
        channels: width of each map, finest first.
        strides: pixels of the image to one of the map, for each map.
        size_multiple: height and width of the image must be multiples of this, in pixels.
        mean, std: per-channel statistics of RGB in 0..1 that the weights were trained with.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    size_multiple: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def hierarchical(self) -> bool:
        """Whether the maps already form a pyramid."""
        return len(set(self.strides)) > 1

    @abstractmethod
    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        """Normalised images, float [B,3,H,W], to four maps [B,channels[i],H/strides[i],W/strides[i]]."""


class PlainViT(Encoder):
    """A ViT without a pyramid, such as DINOv2's."""

    def __init__(self, vit: Any) -> None:
        super().__init__()
        self.vit = vit
        # DINOv2's mask token is used in its own pretraining only: trainable, it would be a parameter without a
        # gradient.
        mask_token = getattr(vit, "mask_token", None)
        if isinstance(mask_token, nn.Parameter):
            mask_token.requires_grad_(False)
        patch: int = vit.patch_embed.patch_size[0]
        self.blocks = tapped_blocks(len(vit.blocks))
        self.channels, self.strides, self.size_multiple = (vit.embed_dim,) * LEVELS, (patch,) * LEVELS, patch
        self.mean, self.std = tuple(vit.default_cfg["mean"]), tuple(vit.default_cfg["std"])

    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        """See Encoder."""
        distinct = sorted(set(self.blocks))
        maps = self.vit.forward_intermediates(image_BCHW, indices=distinct, norm=True, intermediates_only=True)
        return [maps[distinct.index(block)] for block in self.blocks]


class Hierarchical(Encoder):
    """A network with stages at strides 4, 8, 16 and 32, such as EfficientNet or ConvNeXt."""

    def __init__(self, stages: Any, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.stages = stages
        self.channels, self.strides = tuple(stages.feature_info.channels()), tuple(stages.feature_info.reduction())
        self.size_multiple, self.mean, self.std = self.strides[-1], mean, std

    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        """See Encoder."""
        return list(self.stages(image_BCHW))


def build_encoder(name: str, options: dict[str, Any] | None = None) -> Encoder:
    """Build an encoder with random weights (`load_encoder_weights` brings the real ones).

    Args:
        name: a timm model name.
        options: passed to timm's constructor, for example {"depth": 2}.

    Raises:
        EncoderError: timm has no such model, or it has neither plain blocks nor stages at strides 4, 8, 16, 32.
    """
    options = options or {}
    if not timm.is_model(name):
        near = ", ".join(difflib.get_close_matches(name, timm.list_models(), n=5)) or "none"
        raise EncoderError(f"timm has no model {name!r}; names near it: {near}")
    encoder = _build(name, options)
    _try(encoder, name)
    return encoder


def tapped_blocks(depth: int) -> tuple[int, ...]:
    """Which blocks feed the head: [2,5,8,11] of 12, [4,11,17,23] of 24 (the authors'), else the ends of quarters."""
    if depth == 24:
        return 4, 11, 17, 23
    return tuple(math.ceil((level + 1) * depth / LEVELS) - 1 for level in range(LEVELS))


def _build(name: str, options: dict[str, Any]) -> Encoder:
    try:
        try:
            whole = timm.create_model(name, pretrained=False, dynamic_img_size=True, **options)
        except TypeError:
            whole = timm.create_model(name, pretrained=False, **options)
    except TypeError as error:
        raise EncoderError(f"{name}: timm does not take these options: {error}") from error
    if isinstance(whole, VisionTransformer):
        whole.reset_classifier(0)
        return PlainViT(whole)
    return _hierarchical(name, options)


@torch.no_grad()
def _try(encoder: Encoder, name: str) -> None:
    """Refuse what timm builds but what gives no four maps at any size, such as Swin with its fixed windows."""
    height, width = 2 * encoder.size_multiple, 3 * encoder.size_multiple
    wanted = [
        (channels, height // stride, width // stride)
        for channels, stride in zip(encoder.channels, encoder.strides, strict=True)
    ]
    try:
        found = [tuple(map_BCHW.shape[1:]) for map_BCHW in encoder.eval()(torch.zeros(1, 3, height, width))]
    except (AssertionError, RuntimeError, ValueError) as error:
        raise EncoderError(f"{name}: does not take images of any size ({error}); choose another encoder") from error
    if found != wanted:
        raise EncoderError(f"{name}: its maps are {found} where {wanted} were expected; choose another encoder")
    encoder.train()


def _hierarchical(name: str, options: dict[str, Any]) -> Encoder:
    try:
        probe: Any = timm.create_model(name, pretrained=False, features_only=True, **options)
    except (RuntimeError, AttributeError, TypeError) as error:
        raise EncoderError(f"{name}: is neither a plain ViT nor a network with stages: {error}") from error
    reductions = list(probe.feature_info.reduction())
    if missing := set(HIERARCHICAL_STRIDES) - set(reductions):
        raise EncoderError(f"{name}: has no stage at stride {min(missing)}; choose one with strides 4, 8, 16 and 32")
    indices = tuple(len(reductions) - 1 - reductions[::-1].index(stride) for stride in HIERARCHICAL_STRIDES)
    stages = timm.create_model(name, pretrained=False, features_only=True, out_indices=indices, **options)
    return Hierarchical(stages, tuple(probe.default_cfg["mean"]), tuple(probe.default_cfg["std"]))


def normalisation(encoder: Encoder) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation as float [3,1,1], of RGB in 0..1."""
    return torch.tensor(encoder.mean).view(3, 1, 1), torch.tensor(encoder.std).view(3, 1, 1)
