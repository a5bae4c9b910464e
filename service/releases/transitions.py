"""Changes of a release, within the caller's transaction.

    judged ─► declined | asked | shadow | canary | serving | superseded      by the service, after the verdict
    asked, shadow ─► serving | declined                                      by a person
    canary ─► serving | withdrawn                                            by the service, or a person
    serving ─► withdrawn                                                     by the service, if the model is worse
    any ─► superseded                          another version was activated, or another candidate is rolled out
    any but serving ─► serving                                               by a person: a person has the last word

The service activates by compare-and-set: only if the activation that the candidate was judged against is still in
effect. A person's activation or rollback, before or after, is never overridden.
"""

from __future__ import annotations

from typing import Any, Literal

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session, object_session

from service.errors import names_only
from service.models.activations import activate_version, existing_model, lock_activations, newest_activation
from service.releases.watch.regression import read_base
from service.settings import Settings
from service.storage.tables import OPEN, ROLLED_OUT, UNSERVABLE, Activation, Model, Release, ReleaseState, utc_now
from service.webhooks.outbox import add_message

log = structlog.stdlib.get_logger(__name__)

MAX_REASON = 200
"""Longest reason of an activation, in characters."""


def record_verdict(
    session: Session, run_id: str, version: str, verdict: dict[str, Any], against: Activation | None
) -> Release:
    """Add the release of a judged candidate, and reject the candidate if the verdict says so."""
    lock_activations(session)
    model = existing_model(session, version)
    # A person may have activated the candidate while it was judged.
    if model.state == "candidate" and verdict["outcome"] == "reject":
        model.state, model.error = "rejected", verdict["sentence"]
    release = Release(
        run_id=run_id,
        version=version,
        verdict=verdict,
        base_version=against.version if against else None,
        judged_against=against.id if against else None,
        state="judged",
        reason=names_only(verdict["sentence"]),
    )
    session.add(release)
    session.flush()
    return release


def conclude(session: Session, release: Release, settings: Settings) -> None:
    """Do what the verdict and the settings say; nothing if the release is concluded."""
    lock_activations(session)
    session.refresh(release)
    if release.state != "judged" or _is_served_by_person(session, release):
        return
    outcome = release.verdict["outcome"]
    if outcome == "reject":
        change(release, "declined", release.verdict["sentence"])
    elif _supersede_if_stale(session, release):
        return
    elif release.verdict.get("needs_person"):
        _wait_for_person(session, release, "ask")
    elif outcome == "undecided":
        _conclude_undecided(session, release, settings)
    elif settings.release_mode == "auto" or (settings.release_mode != "ask" and release.judged_against is None):
        # Without a model to compare with, shadow and canary have no meaning.
        serve(session, release, release.verdict["sentence"])
    elif settings.release_mode == "canary" and _has_same_ids(release):
        _roll_out(session, release, "canary", release.verdict["sentence"])
    else:
        _wait_for_person(session, release, "shadow" if settings.release_mode == "shadow" else "ask")


def serve(session: Session, release: Release, reason: str, key_name: str | None = None) -> None:
    """Activate the candidate. The caller holds the lock and has checked that nobody is overridden."""
    text = reason if key_name else f"run {release.run_id}"
    # An approval is watched like an activation by the service; the word of a person who overrides the gate is last.
    watched = key_name is None or release.state in OPEN
    activation = activate_version(session, release.version, text[:MAX_REASON], key_name)
    _set_serving(release, activation, reason, watched=watched)
    supersede_others(session)


def follow_activation(session: Session, activation: Activation) -> None:
    """Let the releases agree with an activation that none of them caused: that of its version serves, others do not."""
    query = select(Release).where(Release.version == activation.version).order_by(Release.id.desc())
    release = session.scalars(query.limit(1)).first()
    if release is not None:
        _set_serving(release, activation, activation.reason, watched=False)
    supersede_others(session)


def finish_canary(session: Session, release: Release, requests: int) -> bool:
    """Activate a canary after its requests, unless someone has decided meanwhile; return whether it was done."""
    lock_activations(session)
    session.refresh(release)
    if release.state != "canary" or not is_current(session, release):
        return False
    serve(session, release, f"It was not worse than {release.base_version} as the canary of {requests} requests.")
    return True


def fail(session: Session, release: Release, why: str) -> None:
    """End the shadow or canary of a candidate that does not load."""
    lock_activations(session)
    session.refresh(release)
    if release.state in ROLLED_OUT:
        model = existing_model(session, release.version)
        model.state, model.error = "failed", why
        change(release, "withdrawn", f"It does not load: {why}")


def withdraw(session: Session, release: Release, why: str) -> bool:
    """Return to the model before, unless a person has activated another one meanwhile; return whether it was done."""
    lock_activations(session)
    session.refresh(release)
    base = session.get(Model, release.base_version) if release.base_version else None
    is_watched = release.state == "canary" or (release.state == "serving" and release.watched)
    if base is None or base.state in UNSERVABLE or not is_watched or not is_current(session, release):
        return False
    was_serving = release.state == "serving"
    text = f"Withdrawn in traffic: {why} ({base.version})."
    model = existing_model(session, release.version)
    model.state, model.error = "withdrawn", text
    change(release, "withdrawn", text)
    if was_serving:
        follow_activation(session, activate_version(session, base.version, f"release {release.id} was withdrawn"))
    return True


def change(release: Release, state: ReleaseState, reason: str, key_name: str | None = None) -> None:
    """Set the state with its reason, and the key of the person who decided."""
    # Clients read it.
    release.state, release.reason, release.decided_by = state, names_only(reason), key_name
    release.changed_at = utc_now()
    session = object_session(release)
    assert session is not None  # noqa: S101 - the caller's transaction
    fields = ("run_id", "version", "state", "reason", "decided_by")
    data = {name: getattr(release, name) for name in fields}
    add_message(session, f"release.{state}", {"release_id": release.id, **data})
    log.info("release changed", release=release.id, version=release.version, state=state, reason=reason, key=key_name)


def supersede_others(session: Session) -> None:
    """Supersede every release that another activation has made stale."""
    lock_activations(session)
    for release in session.scalars(select(Release).where(Release.state.in_((*OPEN, "serving")))):
        _supersede_if_stale(session, release)


def is_current(session: Session, release: Release) -> bool:
    """Whether the activation on which the release rests is in effect."""
    newest = newest_activation(session)
    expected = release.activation_id if release.state == "serving" else release.judged_against
    return (newest.id if newest else None) == expected


def _set_serving(release: Release, activation: Activation, reason: str, *, watched: bool) -> None:
    release.activation_id, release.watched = activation.id, watched
    change(release, "serving", reason, activation.key_name)


def _is_served_by_person(session: Session, release: Release) -> bool:
    """Whether a person activated the candidate while it was judged; then it serves, whatever the verdict."""
    newest = newest_activation(session)
    if newest is None or newest.version != release.version or newest.id == release.judged_against:
        return False
    _set_serving(release, newest, newest.reason, watched=False)
    return True


def _supersede_if_stale(session: Session, release: Release) -> bool:
    if is_current(session, release):
        return False
    model = existing_model(session, release.version)
    if release.state == "serving" and model.state == "failed":
        change(release, "withdrawn", f"It does not load: {model.error}")
        return True
    newest = newest_activation(session)
    what = f"{newest.version} was activated ({newest.reason})" if newest else "no version is active any more"
    if release.state == "serving":
        change(release, "superseded", f"After {release.version}, {what}.")
    else:
        change(
            release,
            "superseded",
            f"{what[0].upper()}{what[1:]} after the candidate was judged against {release.base_version or 'no model'}: "
            f"the verdict does not hold for it. Start a new run, or POST /v1/releases/{release.id}/release.",
        )
    return True


def _conclude_undecided(session: Session, release: Release, settings: Settings) -> None:
    if settings.release_undecided == "keep":
        change(release, "declined", release.verdict["sentence"])
    else:
        _wait_for_person(session, release, settings.release_undecided)


def _wait_for_person(session: Session, release: Release, mode: Literal["ask", "shadow"]) -> None:
    how = f"A person decides: POST /v1/releases/{release.id}/release or /decline."
    reason = f"{release.verdict['sentence']} {how}"
    if not _has_same_ids(release):
        reason += " Its masks have other class ids than those of the active model, so no request gets it before."
        mode = "ask"
    if mode == "ask":
        change(release, "asked", reason)
    else:
        _roll_out(session, release, "shadow", reason)


def _has_same_ids(release: Release) -> bool:
    """Whether candidate and active model may answer at the same time: their masks have the same class ids."""
    return bool(release.verdict.get("same_ids", True))


def _roll_out(session: Session, release: Release, state: Literal["shadow", "canary"], reason: str) -> None:
    """Begin a shadow or a canary; it takes the place of an earlier one, as a process loads one candidate."""
    for earlier in session.scalars(select(Release).where(Release.state.in_(ROLLED_OUT))):
        change(
            earlier,
            "superseded",
            f"The newer candidate {release.version} took its place in traffic. To activate this one all the same, "
            f"POST /v1/releases/{earlier.id}/release.",
        )
    if state == "canary":
        release.before_canary = read_base(session, release).to_json()
    change(release, state, reason)
