"""Which models and runs are in use, and why: they are never deleted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import structlog
from sqlalchemy import or_, select
from sqlalchemy.orm import Session, defer

from service.errors import BundleInvalid
from service.models.activations import earlier_activation, newest_activation
from service.models.model_store import ModelStore
from service.releases.gate.best_version import find_best
from service.storage.tables import ACTIVE, OPEN, Model, Release, Run

log = structlog.stdlib.get_logger(__name__)


def best_version(models: ModelStore) -> str | None:
    """Version with which the gate compares candidates besides the active one; None: no other."""
    activated = models.activated()
    if activated is None:
        return None
    try:
        active = models.bundle(activated.version)
        best = find_best(models, active, active, models.classes.listed)
    except BundleInvalid as error:
        # A run would fail, too.
        log.warning("the best version so far is unknown", reason=str(error))
        return None
    return best.manifest.version if best else None


def models_in_use(session: Session, best: str | None) -> dict[str, str]:
    """Map the versions in use to the reason, a clause; `best` is from `best_version`."""
    reasons: dict[str, str] = {}
    for version, why in _uses_of_models(session, best):
        # NULL in the database.
        if version is not None:
            reasons.setdefault(version, why)
    return reasons


def runs_in_use(session: Session, models: Mapping[str, str]) -> dict[str, str]:
    """Map the ids of runs in use to the reason, a clause; `models` is from `models_in_use`."""
    active = session.execute(select(Run.id, Run.status).where(Run.status.in_(ACTIVE)))
    reasons: dict[str, str] = {run_id: f"it is {status}" for run_id, status in active}
    trained = select(Model.run_id, Model.version).where(Model.run_id.is_not(None), Model.version.in_(models))
    for run_id, version in session.execute(trained):
        reasons.setdefault(str(run_id), f"it has trained {version}: {models[version]}")
    return reasons


def _uses_of_models(session: Session, best: str | None) -> Iterator[tuple[str | None, str]]:
    active, earlier = newest_activation(session), earlier_activation(session)
    if active is not None:
        yield active.version, "it is the active model"
    if earlier is not None:
        yield earlier.version, "a rollback would activate it"
    watched = or_(Release.state.in_(OPEN), (Release.state == "serving") & Release.watched)
    for release in session.scalars(select(Release).where(watched).options(defer(Release.verdict))):
        yield release.version, f"its release {release.id} is {release.state}"
        yield release.base_version, f"the service would return to it from release {release.id}"
    for run in session.scalars(select(Run).where(Run.status.in_(ACTIVE))):
        yield run.base_version, f"run {run.id} starts from it"
        yield run.candidate_version, f"run {run.id} judges it"
        for version in session.scalars(select(Model.version).where(Model.run_id == run.id)):
            yield version, f"run {run.id} judges it"
    yield best, "it is the best version so far, with which the gate compares candidates"
