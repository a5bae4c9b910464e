"""Let the service release a version that the gate is said to have judged."""

from __future__ import annotations

from service.releases.transitions import conclude, record_verdict
from service.settings import Settings
from service.state import State
from service.storage.tables import Release, Run


def release_version(state: State, version: str, settings: Settings, outcome: str = "promote") -> int:
    """Record the verdict of a run about a version of the store, and act on it. Returns the id of the release."""
    verdict = {"outcome": outcome, "sentence": f"The gate says {outcome}."}
    with state.database.write() as session:
        session.add(Run(id="r1", number=1, status="running", reason="manual"))
        session.flush()
        release = record_verdict(session, "r1", version, verdict, state.models.activation())
    act(state, release.id, settings)
    return release.id


def act(state: State, release_id: int, settings: Settings) -> None:
    """Let the service act on the verdict."""
    with state.database.write() as session:
        conclude(session, session.get_one(Release, release_id), settings)
