"""Start a run because of drift."""

from __future__ import annotations

from sqlalchemy import exists, select

from service.errors import Conflict, Unavailable
from service.runs.policy.retrain_policy import RetrainPolicy
from service.runs.policy.triggers import find_pause
from service.storage.analysis_tables import DriftTest
from service.storage.tables import Run


def start_for_drift(policy: RetrainPolicy) -> Run | None:
    """Start a run if the settings want it, the active model's last drift test alarmed, and no run used its images."""
    activated = policy.models.activated()
    if activated is None or not policy.settings.retrain_on_drift:
        return None
    tests = select(DriftTest).where(DriftTest.version == activated.version).order_by(DriftTest.id.desc())
    with policy.database.read() as session:
        last = session.scalars(tests.limit(1)).first()
        if last is None or not last.alarm or find_pause(session, policy.settings):
            return None
        used = exists().where(Run.status != "failed", Run.image_sequence >= last.newest)
        if session.scalar(select(used)):
            return None
    try:
        return policy.start("drift")
    except (Conflict, Unavailable) as error:
        policy.report_obstacle(error)
        return None
