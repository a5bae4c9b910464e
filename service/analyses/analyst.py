"""Analyse the images of the pool with the active model, a few at a time, in the background of a worker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import structlog
from sqlalchemy import func, select, update

from service.analyses.analysed_days import count_days
from service.analyses.analysed_range import (
    analysed_model,
    begin,
    compared_up_to,
    extend,
    forget_old_models,
    next_images,
)
from service.analyses.duplicate_calibration import IMAGES, MIN_IMAGES, measure_threshold
from service.analyses.duplicate_search import find_leaders
from service.analyses.nearest_rows import Fingerprint, fingerprint_files
from service.errors import MaskloopError, OutOfMemory, Unavailable
from service.images.duplicate_clusters import join_cluster
from service.images.image_store import ImageStore
from service.models.loading import LoadedModel, load_model
from service.models.model_store import ModelStore
from service.segmentation.analysis import Analysis, analyse
from service.segmentation.decode import EncodedImage, Limits
from service.segmentation.inference.cancellation import CancelCheck
from service.settings import Settings
from service.storage.analysis_tables import AnalysedModel, ImageAnalysis
from service.storage.database import Database
from service.storage.tables import Image
from service.storage.vector_file import VectorFolder

log = structlog.stdlib.get_logger(__name__)

BATCH = 16


@dataclass(kw_only=True)
class Analyst:
    """Analyses images in batches. Belongs to one thread; several workers may analyse one pool."""

    settings: Settings
    database: Database
    images: ImageStore
    models: ModelStore
    limits: Limits
    vectors: VectorFolder

    def __post_init__(self) -> None:
        self._loaded: LoadedModel | None = None
        self._calibrated: str | None = None

    def release(self) -> None:
        """Free the memory of the model; the next batch loads it again."""
        self._loaded = None

    def analyse_batch(self, is_cancelled: CancelCheck) -> int:
        """Analyse the next images with the active model and record the results; return the number of images.

        Images that cannot be read or are too large are left out.

        Raises:
            BundleInvalid, Unavailable: The model cannot be loaded, or the device failed.
            InferenceCancelled: `is_cancelled` returned True; nothing was recorded.
        """
        activated = self.models.activated()
        if activated is None:
            return 0
        model = analysed_model(self.database, activated.version)
        if model is None:
            dimensions = self.models.bundle(activated.version).manifest.embedding_dimensions
            model = begin(self.database, activated.version, dimensions)
            for version in forget_old_models(self.database, activated.version):
                self.vectors.delete(version)
        batch = next_images(self.database, model, BATCH)
        if not batch:
            return 0
        loaded = self._load(model.version)
        self._calibrate(model, loaded, is_cancelled)
        analyses = {image.sequence: found for image in batch if (found := self._analyse(image, loaded, is_cancelled))}
        self._record(model, batch, analyses)
        return len(batch)

    def _load(self, version: str) -> LoadedModel:
        if self._loaded is None or self._loaded.version != version:
            self._loaded = None
            # fp32 everywhere: embeddings of other graphs differ too much to be compared.
            settings = self.settings.model_copy(update={"precision": "fp32"})
            self._loaded = load_model(self.models.bundle(version), settings)
        return self._loaded

    def _analyse(self, image: Image, loaded: LoadedModel, is_cancelled: CancelCheck) -> Analysis | None:
        try:
            data = self.images.read(image.id)
            return analyse(data, loaded.engine, self.limits, loaded.value_range, is_cancelled=is_cancelled)
        except OutOfMemory as error:
            log.warning("image not analysed", image=image.id, reason=str(error))
        except Unavailable:
            raise
        except MaskloopError as error:
            log.warning("image not analysed", image=image.id, reason=str(error))
        return None

    def _calibrate(self, model: AnalysedModel, loaded: LoadedModel, is_cancelled: CancelCheck) -> None:
        """Measure the threshold of near-duplicates, once the pool has enough images."""
        if model.dimensions is None or model.duplicate_threshold is not None or self._calibrated == model.version:
            return
        some = select(Image).where(Image.duplicate_of.is_(None)).order_by(func.random()).limit(IMAGES)
        with self.database.read() as session:
            chosen = session.scalars(some).all()
        if len(chosen) < MIN_IMAGES:
            return
        threshold = measure_threshold(self._pixels(chosen, loaded), loaded.engine, is_cancelled)
        # Images that cannot be read would be read again for every batch.
        self._calibrated = model.version
        model.duplicate_threshold = threshold
        with self.database.write() as session:
            row = update(AnalysedModel).where(AnalysedModel.id == model.id)
            session.execute(row.values(duplicate_threshold=threshold))
        log.info("threshold of near-duplicates measured", version=model.version, cosine=threshold, images=len(chosen))

    def _pixels(self, chosen: Sequence[Image], loaded: LoadedModel) -> Iterator[np.ndarray]:
        for image in chosen:
            try:
                data = self.images.read(image.id)
                yield EncodedImage(data, self.limits, loaded.value_range).decode().image_HW3
            except MaskloopError as error:
                log.warning("image cannot be read", image=image.id, reason=str(error))

    def _record(self, model: AnalysedModel, batch: Sequence[Image], analyses: dict[int, Analysis]) -> None:
        with self.database.read() as session:
            # After a rollback, the model is behind the one that was active meanwhile.
            compared = compared_up_to(session)
        new = {sequence: _fingerprint(each) for sequence, each in analyses.items() if sequence > compared}
        leaders = find_leaders(self.database, fingerprint_files(self.vectors, model), new)
        with self.database.write() as session:
            # Locked: a deletion waits, and then erases what is written here.
            wanted = [*analyses, *leaders.values()]
            locked = select(Image).where(Image.sequence.in_(wanted)).order_by(Image.sequence).with_for_update()
            present = {image.sequence: image for image in session.scalars(locked)}
            if not extend(session, model, batch):
                return
            kept = {sequence: each for sequence, each in analyses.items() if sequence in present}
            self._write_vectors(model, kept)
            session.add_all(_row(model.version, sequence, each) for sequence, each in kept.items())
            count_days(session, model.version, [(present[sequence], each) for sequence, each in kept.items()])
            for sequence, leader in leaders.items():
                if sequence in present and leader in present:
                    join_cluster(session, present[sequence], present[leader])

    def _write_vectors(self, model: AnalysedModel, analyses: dict[int, Analysis]) -> None:
        hashes = np.array([each.perceptual_hash for each in analyses.values()], np.uint64)
        self.vectors.hashes().write(list(analyses), hashes[:, None])
        embeddings = {sequence: each.embedding_D for sequence, each in analyses.items() if each.embedding_D is not None}
        if embeddings and model.dimensions:
            file = self.vectors.embeddings(model.version, model.dimensions)
            file.write(list(embeddings), np.stack(list(embeddings.values())))


def _fingerprint(analysis: Analysis) -> Fingerprint:
    embedding_D = analysis.embedding_D
    return Fingerprint(None if embedding_D is None else embedding_D.astype(np.float32), analysis.perceptual_hash)


def _row(version: str, sequence: int, analysis: Analysis) -> ImageAnalysis:
    return ImageAnalysis(
        version=version,
        sequence=sequence,
        confidence=analysis.mean_confidence,
        uncertainty=analysis.uncertainty,
        areas=analysis.areas,
    )
