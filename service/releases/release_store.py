"""Read access to releases, and the decisions of people."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.errors import ModelNotServable, ReasonMissing, ReleaseDecided, ReleaseNotFound
from service.models.activations import activate_previous, activate_version, existing_model, lock_activations
from service.releases.transitions import change, follow_activation, is_current, serve
from service.releases.watch.regression import read_both
from service.releases.watch.traffic_counters import Counts
from service.storage.database import Database
from service.storage.tables import OPEN, Activation, Release

BY_PERSON = "requested over HTTP"


class ReleaseStore:
    """Releases, and activations by people."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, release_id: int) -> Release:
        """Get a release. Raises ReleaseNotFound."""
        with self._database.read() as session:
            return _existing(session, release_id)

    def with_traffic(self, release_id: int) -> tuple[Release, Counts, Counts]:
        """Get a release with the traffic of its candidate and of the model before. Raises ReleaseNotFound."""
        with self._database.read() as session:
            release = _existing(session, release_id)
            return release, *read_both(session, release)

    def of_run(self, run_id: str) -> Release | None:
        """Get the release of a run's candidate; None before its verdict."""
        with self._database.read() as session:
            return session.scalars(select(Release).where(Release.run_id == run_id)).one_or_none()

    def list(self, run_id: str | None = None, limit: int = 100) -> Sequence[Release]:
        """List the releases, newest first, or that of a run."""
        query = select(Release).order_by(Release.id.desc()).limit(limit)
        with self._database.read() as session:
            return session.scalars(query if run_id is None else query.where(Release.run_id == run_id)).all()

    def release(self, release_id: int, reason: str, key_name: str | None) -> Release:
        """Activate a candidate, whatever the verdict.

        Raises ReleaseNotFound, ReleaseDecided if it serves already, or ModelNotServable if it does not load.
        """
        with self._database.write() as session:
            lock_activations(session)
            release = _existing(session, release_id)
            if release.state == "serving" and is_current(session, release):
                raise ReleaseDecided(f"Release {release_id} is serving: there is nothing to release.")
            model = existing_model(session, release.version)
            if model.state == "failed":
                raise ModelNotServable(
                    f"{release.version} does not load ({model.error}): upload its bundle again (POST /v1/models)."
                )
            serve(session, release, reason, key_name)
            return release

    def decline(self, release_id: int, reason: str, key_name: str | None) -> Release:
        """Keep the active model. Raises ReleaseNotFound, or ReleaseDecided if the candidate waits for no decision."""
        with self._database.write() as session:
            lock_activations(session)
            release = _existing(session, release_id)
            if release.state not in OPEN:
                serves = release.state == "serving"
                remedy = " POST /v1/models/rollback returns to the model that served before." if serves else ""
                raise ReleaseDecided(
                    f"Release {release_id} is {release.state}: only one that is {', '.join(OPEN)} can be declined."
                    f"{remedy}"
                )
            change(release, "declined", reason, key_name)
            return release

    def activate(self, version: str, reason: str | None, key_name: str | None) -> Activation:
        """Activate a version for a person.

        Raises ModelNotFound, or ReasonMissing if it was rejected or withdrawn and no reason is given.
        """
        with self._database.write() as session:
            lock_activations(session)
            model = existing_model(session, version)
            if model.state in ("rejected", "withdrawn") and reason is None:
                raise ReasonMissing(
                    f"{version} is {model.state} ({model.error or 'by the gate'}): activate it with ?reason=, which is "
                    "recorded, or activate another version."
                )
            activation = activate_version(session, version, reason or BY_PERSON, key_name)
            follow_activation(session, activation)
            return activation

    def rollback(self, key_name: str | None) -> Activation:
        """Activate the previously active version. Raises NothingToRollBack if there is none."""
        with self._database.write() as session:
            activation = activate_previous(session, "rollback", key_name)
            follow_activation(session, activation)
            return activation


def _existing(session: Session, release_id: int) -> Release:
    # The transaction may wait for the lock of the activations: read what is committed then.
    release = session.get(Release, release_id, populate_existing=True)
    if release is None:
        raise ReleaseNotFound(f"There is no release {release_id}: GET /v1/releases lists them.")
    return release
