"""Which images a model has analysed, and which are next: new ones first, then older ones, from the newest on.

Sequences, not the clock, keep the place. After a swap, the new model begins after the images that were compared with
earlier ones, and analyses the older images when there are no new ones.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from service.storage.analysis_tables import AnalysedDay, AnalysedModel, DriftTest, ImageAnalysis
from service.storage.database import Database
from service.storage.tables import Image

KEPT_MODELS = 2
"""The active one and the one before it, for a rollback."""
CHUNK = 5_000
"""Analyses that one transaction deletes."""


def analysed_model(database: Database, version: str) -> AnalysedModel | None:
    """Row of a version, if it has begun."""
    with database.read() as session:
        return session.scalars(select(AnalysedModel).where(AnalysedModel.version == version)).first()


def begin(database: Database, version: str, dimensions: int | None) -> AnalysedModel:
    """Create the row of a version, unless it exists."""
    with database.write() as session:
        # Other workers begin at the same time.
        database.lock(session, f"analyses of {version}")
        known = session.scalars(select(AnalysedModel).where(AnalysedModel.version == version)).first()
        if known is not None:
            return known
        newest = compared_up_to(session)
        row = AnalysedModel(version=version, dimensions=dimensions, oldest=newest + 1, newest=newest)
        session.add(row)
        session.flush()
        session.refresh(row)
        return row


def compared_up_to(session: Session) -> int:
    """Sequence up to which images were compared with earlier ones, by whichever model was active."""
    return session.scalar(select(func.max(AnalysedModel.newest))) or 0


def next_images(database: Database, model: AnalysedModel, limit: int) -> Sequence[Image]:
    """The next images to analyse, in the order of arrival; all newer or all older than the analysed ones."""
    newer = select(Image).where(Image.sequence > model.newest).order_by(Image.sequence).limit(limit)
    older = select(Image).where(Image.sequence < model.oldest).order_by(Image.sequence.desc()).limit(limit)
    with database.read() as session:
        return session.scalars(newer).all() or session.scalars(older).all()[::-1]


def extend(session: Session, model: AnalysedModel, images: Sequence[Image]) -> bool:
    """Record that these images are analysed; return False if another worker was faster."""
    row = session.get_one(AnalysedModel, model.id, with_for_update=True)
    if (row.oldest, row.newest) != (model.oldest, model.newest):
        return False
    row.oldest, row.newest = min(row.oldest, images[0].sequence), max(row.newest, images[-1].sequence)
    return True


def forget_old_models(database: Database, active: str) -> list[str]:
    """Delete the analyses of all models but the newest `KEPT_MODELS` and the active one; return their versions."""
    with database.read() as session:
        versions = session.scalars(select(AnalysedModel.version).order_by(AnalysedModel.id.desc())).all()
    old = [version for version in versions[KEPT_MODELS:] if version != active]
    for version in old:
        forget_model(database, version)
    return old


def forget_model(database: Database, version: str, until: float = math.inf) -> bool:
    """Delete the analyses of a version, in short transactions; return False if time is up at `until` (monotonic)."""
    while True:
        if time.monotonic() > until:
            return False
        some = select(ImageAnalysis.sequence).where(ImageAnalysis.version == version).limit(CHUNK)
        with database.write() as session:
            sequences = session.scalars(some.order_by(ImageAnalysis.sequence)).all()
            if not sequences:
                break
            own = ImageAnalysis.version == version
            session.execute(delete(ImageAnalysis).where(own, ImageAnalysis.sequence <= sequences[-1]))
    # The row last: it shows that there may be more to delete.
    with database.write() as session:
        for table in (AnalysedDay, DriftTest, AnalysedModel):
            session.execute(delete(table).where(table.version == version))
    return True
