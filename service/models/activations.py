"""Activations within the caller's transaction. The newest one whose model can serve names the active version."""

from __future__ import annotations

import structlog
from sqlalchemy import Select, select, text
from sqlalchemy.orm import Session

from service.errors import ModelNotFound, ModelNotServable, NothingToRollBack
from service.storage.tables import UNSERVABLE, Activation, Model

log = structlog.stdlib.get_logger(__name__)


def lock_activations(session: Session) -> None:
    """Let no other transaction activate until the end of this one: what was read stays true.

    With SQLite, a write transaction excludes every other one.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("LOCK TABLE activations IN SHARE ROW EXCLUSIVE MODE"))


def newest_activation(session: Session) -> Activation | None:
    """Return the activation of the version to serve."""
    return session.scalars(_in_effect()).first()


def earlier_activation(session: Session) -> Activation | None:
    """Return the activation to which a rollback returns: of the version that was active before."""
    past = session.scalars(_in_effect()).all()
    return next((each for each in past if each.version != past[0].version), None)


def activate_version(session: Session, version: str, reason: str, key_name: str | None = None) -> Activation:
    """Activate a version. Raises ModelNotFound, or ModelNotServable if it was deleted."""
    lock_activations(session)
    model = existing_model(session, version)
    # Read after the wait for the lock.
    session.refresh(model)
    check_not_deleted(model)
    model.state, model.error = "ready", None
    return _append(session, version, reason, key_name)


def activate_previous(session: Session, reason: str, key_name: str | None = None) -> Activation:
    """Activate the version that was active before. Raises NothingToRollBack if there is none."""
    lock_activations(session)
    earlier = earlier_activation(session)
    if earlier is None:
        raise NothingToRollBack("No other version has been active: upload or activate another one.")
    return _append(session, earlier.version, reason, key_name)


def existing_model(session: Session, version: str) -> Model:
    """Get the row of a version. Raises ModelNotFound."""
    model = session.get(Model, version)
    if model is None:
        raise ModelNotFound(f"There is no model version {version!r}: GET /v1/models lists them.")
    return model


def check_not_deleted(model: Model) -> None:
    """Raise ModelNotServable if a version was deleted."""
    if model.state == "deleted":
        raise ModelNotServable(
            f"{model.version} was deleted ({model.deletion_reason}, {model.deleted_at:%Y-%m-%d}): use another version, "
            "or upload its bundle again (POST /v1/models)."
        )


def _append(session: Session, version: str, reason: str, key_name: str | None) -> Activation:
    row = Activation(version=version, reason=reason, key_name=key_name)
    session.add(row)
    session.flush()
    log.info("model activated", version=version, reason=reason, key=key_name)
    return row


def _in_effect() -> Select[Activation]:
    """Activations of models that can serve, newest first."""
    query = select(Activation).join(Model, Model.version == Activation.version)
    return query.where(Model.state.not_in(UNSERVABLE)).order_by(Activation.id.desc())
