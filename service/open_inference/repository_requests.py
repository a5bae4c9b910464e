"""What a client may ask of the model repository: the bodies of `load`, `unload` and `index`."""

from __future__ import annotations

from typing import Any

from service.errors import BadInput
from service.open_inference import json_body
from service.open_inference.parameters import flag, parameters_of

NOT_HERE = (
    "A model's configuration and files cannot be sent with `load`, as they would run without having been looked at: "
    "upload a bundle (POST /v1/models) and activate it."
)


def load_version(body: bytes) -> str | None:
    """Which version is to be loaded: `version` in the parameters, an addition of ours; None: the model's own choice.

    Raises:
        BadInput: The body is no JSON object, or brings a configuration or files.
    """
    parameters = _parameters(body)
    if parameters.get("config") is not None or any(name.startswith("file:") for name in parameters):
        raise BadInput(NOT_HERE)
    return _version(parameters)


def unload_version(body: bytes) -> str | None:
    """Which version is to be unloaded; None: all that are not active. No model depends on another one here.

    Raises:
        BadInput: The body is no JSON object.
    """
    parameters = _parameters(body)
    flag(parameters, "unload_dependents", default=False)
    return _version(parameters)


def ready_only(body: bytes) -> bool:
    """Whether the index is to list only what is loaded.

    Raises:
        BadInput: The body is no JSON object.
    """
    return flag(_object(body), "ready", default=False)


def _parameters(body: bytes) -> dict[str, Any]:
    return parameters_of(_object(body), "the request")


def _object(body: bytes) -> dict[str, Any]:
    return json_body.read(body) if body.strip() else {}


def _version(parameters: dict[str, Any]) -> str | None:
    version = parameters.get("version")
    if version is None or isinstance(version, str):
        return version
    raise BadInput("Parameter `version` must be a string.")
