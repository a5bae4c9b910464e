"""Where the training of a run starts: at the active model, at another version, or at the encoder."""

from __future__ import annotations

from dataclasses import dataclass

from service.errors import BundleInvalid, ModelNotServable, NoModel, StartUnusable
from service.models.model_store import ModelStore

ACTIVE_MODEL, ENCODER = "active", "encoder"


@dataclass(frozen=True, slots=True)
class StartPoint:
    """Where training starts."""

    base_version: str
    """The model that gives the recipe and, unless `from_encoder`, weights."""
    from_encoder: bool


def find_start(models: ModelStore, start_from: str) -> StartPoint:
    """Find the start for "active", "encoder" or a version.

    Its classes may be others than those of the list: training keeps what both have. Raises NoModel, ModelNotFound, or
    StartUnusable for a version without a usable checkpoint.
    """
    active = models.activated()
    if active is None:
        raise NoModel("No model is active, which gives the recipe: upload one (POST /v1/models), activate it.")
    if start_from in (ACTIVE_MODEL, ENCODER):
        return StartPoint(active.version, start_from == ENCODER)
    _check_version(models, start_from)
    return StartPoint(start_from, from_encoder=False)


def _check_version(models: ModelStore, version: str) -> None:
    models.get(version)
    try:
        bundle = models.bundle(version)
    except ModelNotServable as error:
        raise StartUnusable(str(error)) from None
    except BundleInvalid as error:
        raise StartUnusable(f"Version {version} cannot be read ({error}): choose another one.") from None
    if bundle.checkpoint is None or not bundle.checkpoint.exists():
        raise StartUnusable(
            f"The bundle of {version} has no checkpoint, as that of the starter model: choose another version, or "
            '"encoder".'
        )
