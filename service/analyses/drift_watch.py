"""Watch for drift: do the newest images look like those with which the active model was trained?

Every window of W new images is compared once with the training data. A test alarms without drift with probability p, so
there are W / p images between false alarms; p follows from the number in the settings.
"""

# N images, D channels

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import structlog
from sqlalchemy import ColumnElement, Select, exists, func, select
from sqlalchemy.orm import Session

from service.analyses.analysed_range import analysed_model
from service.curation.two_sample_test import compare_samples
from service.settings import Settings
from service.storage.analysis_tables import AnalysedModel, DriftTest, ImageAnalysis
from service.storage.database import Database
from service.storage.tables import Image, Model, Run
from service.storage.vector_file import VectorFolder

log = structlog.stdlib.get_logger(__name__)

MAX_REFERENCES = 500
"""Training images, drawn at random for each test."""
MIN_REFERENCES = 20
ENOUGH = 10_000
"""Training images that stand for all, while a new model has not analysed the older ones."""
PERMUTATIONS_TIMES_LEVEL = 20
"""So many permutations are expected to be as extreme as the threshold: enough for a precise p-value."""


@dataclass(frozen=True, slots=True)
class DriftWatch:
    """Tests windows of new images against the training data of the active model."""

    settings: Settings
    database: Database
    vectors: VectorFolder

    @property
    def level(self) -> float:
        """P-value below which a test alarms."""
        return min(self.settings.drift_window / self.settings.drift_images_between_false_alarms, 0.5)

    def test_if_due(self, version: str, rng: np.random.Generator | None = None) -> DriftTest | None:
        """Test the newest window if it is full and the training data is analysed. `rng` is for tests."""
        model = analysed_model(self.database, version)
        if model is None or model.dimensions is None:
            return None
        rng = rng or np.random.default_rng()
        with self.database.read() as session:
            seen = _snapshot(session, version)
            tested = session.scalar(select(func.max(DriftTest.newest)).where(DriftTest.version == version)) or 0
            recent = session.scalars(_newest(version, seen, tested).limit(self.settings.drift_window)).all()
            ready = len(recent) == self.settings.drift_window and _is_analysed(session, model, seen)
            reference = session.scalars(_reference(version, seen)).all() if ready else []
        recent_ND, reference_ND = self._embeddings(model, recent), self._embeddings(model, reference)
        if len(recent_ND) < 2 or len(reference_ND) < MIN_REFERENCES:
            return None
        permutations = math.ceil(PERMUTATIONS_TIMES_LEVEL / self.level) - 1
        found = compare_samples(recent_ND, reference_ND, permutations=permutations, rng=rng)
        row = DriftTest(
            version=version,
            newest=recent[0],
            images=len(recent_ND),
            reference_images=len(reference_ND),
            mmd2=found.mmd2,
            p_value=found.p_value,
            alarm=found.p_value <= self.level,
        )
        with self.database.write() as session:
            # Another worker may have tested them.
            if session.scalar(select(exists().where(DriftTest.version == version, DriftTest.newest > tested))):
                return None
            session.add(row)
        (log.warning if row.alarm else log.info)("drift tested", version=version, alarm=row.alarm, p_value=row.p_value)
        return row

    def _embeddings(self, model: AnalysedModel, sequences: npt.ArrayLike) -> npt.NDArray[np.float32]:
        assert model.dimensions is not None  # noqa: S101 - the caller checks it
        file = self.vectors.embeddings(model.version, model.dimensions)
        found_ND = file.read(np.asarray(sequences, np.int64)).astype(np.float32)
        return found_ND[found_ND.any(axis=1)]


def _snapshot(session: Session, version: str) -> int | None:
    """Sequence up to which the run that trained a model used images; None: it was trained elsewhere."""
    return session.scalar(
        select(Run.image_sequence).join(Model, Model.run_id == Run.id).where(Model.version == version)
    )


def _is_analysed(session: Session, model: AnalysedModel, seen: int | None) -> bool:
    """Whether the training data is analysed, or enough of its newest images."""
    if seen is not None and model.oldest <= seen - ENOUGH:
        return True
    return not session.scalar(select(exists().where(Image.sequence < model.oldest)))


def _newest(version: str, seen: int | None, tested: int) -> Select[int]:
    """Images that the model did not train on and no test contained, the newest first."""
    new = Image.mask_sha256.is_(None) if seen is None else Image.sequence > seen
    query = _analysed(version, new, Image.sequence > tested)
    return query.order_by(Image.sequence.desc())


def _reference(version: str, seen: int | None) -> Select[int]:
    """Images of the model's training data; labelled images stand for that of a model trained elsewhere."""
    known = Image.mask_sha256.is_not(None) if seen is None else Image.sequence <= seen
    return _analysed(version, known).order_by(func.random()).limit(MAX_REFERENCES)


def _analysed(version: str, *conditions: ColumnElement[bool]) -> Select[int]:
    query = select(Image.sequence).join(ImageAnalysis, ImageAnalysis.sequence == Image.sequence)
    # Near-duplicates are not independent.
    return query.where(ImageAnalysis.version == version, Image.duplicate_of.is_(None), *conditions)
