"""Calls of `/v1/models`, `/v1/releases` and `/v1/retention`."""

from __future__ import annotations

from typing import Any

from service.client.answers import Activation, Model, ModelDetail, Models, Release, ReleaseDetail, Releases
from service.client.call import Call, Request, Upload, dict_call, model_call
from service.client.quoting import quoted

MODELS, RELEASES = "/v1/models", "/v1/releases"
# The service runs the probe of an upload before it answers.
UPLOAD_TIMEOUT_S = 600.0


def list_models(*, deleted: bool = False) -> Call[Models]:
    """List the versions, newest first; `deleted`: also those that were deleted."""
    return model_call(Models, _get(MODELS, deleted=deleted or None))


def get_model(version: str) -> Call[ModelDetail]:
    """Get a version with its classes, metrics and provenance."""
    return model_call(ModelDetail, _get(f"{MODELS}/{quoted(version)}"))


def model_provenance(version: str, *, limit: int = 1000, cursor: str = "") -> Call[dict[str, Any]]:
    """Get from which images, labels, recipe and code a version was made; a page of its labels."""
    return dict_call(_get(f"{MODELS}/{quoted(version)}/provenance", limit=limit, cursor=cursor))


def upload_model(bundle: Upload) -> Call[Model]:
    """Upload a zipped bundle. The service runs its probe before it answers."""
    return model_call(Model, Request(method="POST", path=MODELS, form=[bundle], timeout_s=UPLOAD_TIMEOUT_S))


def activate_model(version: str, *, reason: str | None = None) -> Call[Activation]:
    """Activate a version; it serves once it is loaded. A version that was rejected needs a reason."""
    return model_call(Activation, _post(f"{MODELS}/{quoted(version)}/activate", reason))


def rollback() -> Call[Activation]:
    """Activate the version that was active before."""
    return model_call(Activation, Request(method="POST", path=f"{MODELS}/rollback"))


def delete_model(version: str) -> Call[Model]:
    """Delete a version that is not in use. Its record stays."""
    return model_call(Model, Request(method="DELETE", path=f"{MODELS}/{quoted(version)}"))


def list_releases(*, run_id: str | None = None, limit: int = 100) -> Call[Releases]:
    """List the releases, newest first; `run_id`: only that of a run."""
    return model_call(Releases, _get(RELEASES, run_id=run_id, limit=limit))


def get_release(release_id: int) -> Call[ReleaseDetail]:
    """Get a release with its verdict and its traffic."""
    return model_call(ReleaseDetail, _get(f"{RELEASES}/{quoted(release_id)}"))


def release_candidate(release_id: int, reason: str) -> Call[Release]:
    """Activate a candidate, whatever the verdict."""
    return model_call(Release, _post(f"{RELEASES}/{quoted(release_id)}/release", reason))


def decline_candidate(release_id: int, reason: str) -> Call[Release]:
    """Keep the active model; the candidate stays in the store."""
    return model_call(Release, _post(f"{RELEASES}/{quoted(release_id)}/decline", reason))


def get_retention(**limits: float) -> Call[dict[str, Any]]:
    """Get what the service would delete by age and size; `limits` (`images_days=`, ...) try others than its own."""
    return dict_call(_get("/v1/retention", **limits))


def _get(path: str, **params: Any) -> Request:
    return Request(method="GET", path=path, params=params, repeatable=True)


def _post(path: str, reason: str | None) -> Request:
    return Request(method="POST", path=path, params={"reason": reason})
