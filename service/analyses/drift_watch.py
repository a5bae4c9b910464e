"""Watch for drift: do the newest images look like those with which the active model was trained?

Every window of W new images is compared once with the training data. A test alarms without drift with probability p, so
there are W / p images between false alarms; p follows from the number in the settings.

Frames of a video are not independent, so an image is left out if one of the images just before it is a near-duplicate
of it. That rule treats old and new images alike. Leaving out every near-duplicate of an earlier image would not: what
is common in the training data would be missing among the new images, and each test would alarm.
"""

# N images, D channels

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import structlog
from sqlalchemy import ColumnElement, Select, column, exists, func, select
from sqlalchemy.orm import Session, aliased

from service.analyses.analysed_range import analysed_model
from service.curation.two_sample_test import compare_samples
from service.images.duplicate_clusters import cluster_id
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
BURST = 20
"""Number of images before an image among which a near-duplicate of it is looked for."""
CONSIDERED = 20
"""So many windows of images, and multiples of the reference, are read to find enough outside bursts."""
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
            recent = session.scalars(_newest(version, seen, tested, self.settings.drift_window)).all()
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


def _newest(version: str, seen: int | None, tested: int, count: int) -> Select[int]:
    """Images that the model did not train on and no test contained, the newest first."""
    new = Image.mask_sha256.is_(None) if seen is None else Image.sequence > seen
    images = _analysed(version, new, Image.sequence > tested).order_by(Image.sequence.desc()).limit(CONSIDERED * count)
    return _outside_bursts(images, count).order_by(column("sequence").desc())


def _reference(version: str, seen: int | None) -> Select[int]:
    """Images of the model's training data; labelled images stand for that of a model trained elsewhere."""
    known = Image.mask_sha256.is_not(None) if seen is None else Image.sequence <= seen
    images = _analysed(version, known).order_by(func.random()).limit(CONSIDERED * MAX_REFERENCES)
    return _outside_bursts(images, MAX_REFERENCES)


def _analysed(version: str, *conditions: ColumnElement[bool]) -> Select[int, str]:
    query = select(Image.sequence, cluster_id().label("cluster"))
    query = query.join(ImageAnalysis, ImageAnalysis.sequence == Image.sequence)
    return query.where(ImageAnalysis.version == version, *conditions)


def _outside_bursts(images: Select[int, str], count: int) -> Select[int]:
    """The first `count` of these images that are no near-duplicates of one of the images just before them."""
    some, before = images.subquery(), aliased(Image)
    repeated = exists().where(
        before.sequence.between(some.c.sequence - BURST, some.c.sequence - 1), cluster_id(before) == some.c.cluster
    )
    return select(some.c.sequence.label("sequence")).where(~repeated).limit(count)
