"""What the service knows about drift: the tests of the active model, and its means by day."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.analyses.analysed_range import analysed_model
from service.storage.analysis_tables import AnalysedDay, DriftTest
from service.storage.database import Database


@dataclass(frozen=True, slots=True)
class DriftReport:
    """Newest first."""

    duplicate_threshold: float | None
    tests: Sequence[DriftTest]
    days: Sequence[AnalysedDay]


def read_drift(database: Database, version: str, *, tests: int, days: int) -> DriftReport:
    """Read the newest tests and days of a version."""
    model = analysed_model(database, version)
    with database.read() as session:
        return DriftReport(
            duplicate_threshold=model.duplicate_threshold if model else None,
            tests=newest_tests(session, version, tests),
            days=newest_days(session, version, days),
        )


def newest_tests(session: Session, version: str, limit: int) -> Sequence[DriftTest]:
    """The newest drift tests of a version."""
    query = select(DriftTest).where(DriftTest.version == version).order_by(DriftTest.id.desc())
    return session.scalars(query.limit(limit)).all()


def newest_days(session: Session, version: str, limit: int) -> Sequence[AnalysedDay]:
    """The newest days with images that a version has analysed."""
    query = select(AnalysedDay).where(AnalysedDay.version == version).order_by(AnalysedDay.day.desc())
    return session.scalars(query.limit(limit)).all()
