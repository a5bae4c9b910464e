"""Orders of the pool by what the active model says: which images to label next, and which are similar to one."""

# C candidates, R reference images, L labelled images, D channels

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from sqlalchemy import func, select

from service.analyses.analysed_range import analysed_model
from service.analyses.nearest_rows import most_similar
from service.curation.centroids import central_images
from service.curation.herding import flattened, herd, herding_width
from service.errors import NoModel, NotAnalysed, Overloaded
from service.images.image_store import ImageStore
from service.models.model_store import ModelStore
from service.storage.analysis_tables import AnalysedModel, ImageAnalysis
from service.storage.database import Database
from service.storage.tables import Image
from service.storage.vector_file import VectorFolder

MAX_CANDIDATES = 20_000
"""Of a larger pool, a random part is considered."""
MAX_REFERENCES = 1_000
"""Candidates over which coverage is summed: the kernel of all pairs takes 80 MB."""
MAX_CLUSTERED = 5_000
"""Candidates among which centroids are computed."""
MAX_LABELLED = 20_000
MAX_WAIT_S = 5.0
"""A waiting request occupies a thread that others need."""
RETRY_AFTER_S = 10
ELSEWHERE = (
    "The embeddings of the images are not in this machine's data folder, but in that of the worker: share the folder "
    "`embeddings` between the machines."
)
UNLABELLED_LEADERS = (Image.mask_sha256.is_(None), Image.duplicate_of.is_(None))


@dataclass(frozen=True, slots=True)
class ImageOrders:
    """Reads analyses and embeddings; thread-safe."""

    database: Database
    images: ImageStore
    models: ModelStore
    vectors: VectorFolder
    _turn: threading.Lock = field(default_factory=threading.Lock)
    """One order is computed at a time: each takes a core for seconds, and 100 MB."""

    def uncertain(self, limit: int, rng: np.random.Generator | None = None) -> list[Image]:
        """List unlabelled images in the order in which to label them, at most `limit`.

        Without embeddings: the most uncertain first. Without labels: the most typical of each kind, the most frequent
        kind first. Otherwise by Uncertainty Herding. Near-duplicates and images that are not analysed yet are left out.
        `rng` is for tests.

        Raises NotAnalysed, NoModel, Overloaded.
        """
        model = self._model()
        if model.dimensions is None:
            return self._most_uncertain(model, limit)
        sequences, uncertainty_C = self._candidates(model)
        with self._only_one():
            embeddings_CD = self._embeddings(model, sequences)
            present_C = embeddings_CD.any(axis=1)
            if len(sequences) and not present_C.any():
                raise NotAnalysed(ELSEWHERE)
            sequences, uncertainty_C = sequences[present_C], uncertainty_C[present_C]
            embeddings_CD = embeddings_CD[present_C]
            chosen = self._choose(model, embeddings_CD, uncertainty_C, limit, rng or np.random.default_rng())
        return self._rows(sequences[chosen])

    def similar_to(self, image_id: str, limit: int) -> list[Image]:
        """List the images whose embeddings are nearest to that of an image, the nearest first, without the image.

        Raises ImageNotFound, NotAnalysed, NoModel.
        """
        model, image = self._model(), self.images.get(image_id)
        if model.dimensions is None:
            raise NotAnalysed(
                f"Model {model.version} has no embeddings: train one by a run, or export its checkpoint again; then "
                "activate it."
            )
        embedding_D = self._embeddings(model, np.array([image.sequence]))[0]
        if not embedding_D.any():
            with self.database.read() as session:
                if session.get(ImageAnalysis, (model.version, image.sequence)) is not None:
                    raise NotAnalysed(ELSEWHERE)
            raise NotAnalysed(f"Image {image_id} is not analysed yet: a worker does it, try again in a minute.")
        found = most_similar(self.vectors.embeddings(model.version, model.dimensions), embedding_D, limit + 1)
        return self._rows(found[found != image.sequence][:limit])

    @contextmanager
    def _only_one(self) -> Iterator[None]:
        """Wait until no other order is computed. Raises Overloaded."""
        if not self._turn.acquire(timeout=MAX_WAIT_S):
            raise Overloaded(
                "Other requests for what to label next are computed: try again.", retry_after_s=RETRY_AFTER_S
            )
        try:
            yield
        finally:
            self._turn.release()

    def _choose(
        self,
        model: AnalysedModel,
        embeddings_CD: npt.NDArray[np.float32],
        uncertainty_C: npt.NDArray[np.float64],
        limit: int,
        rng: np.random.Generator,
    ) -> list[int]:
        labelled_LD, labels = self._labelled(model)
        if labels == 0 or len(embeddings_CD) < 2:
            # In random order.
            return central_images(embeddings_CD[:MAX_CLUSTERED], limit, rng)[:limit]
        chosen_R = rng.permutation(len(embeddings_CD))[:MAX_REFERENCES]
        references_RD = embeddings_CD[chosen_R]
        classes = len(self.models.bundle(model.version).manifest.classes)
        weights_R = flattened(uncertainty_C[chosen_R], labels, classes)
        width = herding_width(references_RD, labelled_LD)
        return herd(embeddings_CD, references_RD, weights_R, labelled_LD, width=width, count=limit)

    def _model(self) -> AnalysedModel:
        activated = self.models.activated()
        if activated is None:
            raise NoModel("No model is active: upload one (POST /v1/models), then activate it.")
        model = analysed_model(self.database, activated.version)
        if model is None or model.oldest > model.newest:
            raise NotAnalysed(f"No image is analysed by {activated.version} yet: a worker does it, try again later.")
        return model

    def _most_uncertain(self, model: AnalysedModel, limit: int) -> list[Image]:
        query = select(Image).join(ImageAnalysis, ImageAnalysis.sequence == Image.sequence)
        query = query.where(ImageAnalysis.version == model.version, *UNLABELLED_LEADERS)
        with self.database.read() as session:
            return list(session.scalars(query.order_by(ImageAnalysis.uncertainty.desc(), Image.sequence).limit(limit)))

    def _candidates(self, model: AnalysedModel) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        query = select(ImageAnalysis.sequence, ImageAnalysis.uncertainty)
        query = query.join(Image, Image.sequence == ImageAnalysis.sequence)
        query = query.where(ImageAnalysis.version == model.version, *UNLABELLED_LEADERS)
        with self.database.read() as session:
            found = session.execute(query.order_by(func.random()).limit(MAX_CANDIDATES)).all()
        sequences = np.array([sequence for sequence, _ in found], np.int64)
        return sequences, np.array([uncertainty for _, uncertainty in found], np.float64)

    def _labelled(self, model: AnalysedModel) -> tuple[npt.NDArray[np.float32], int]:
        """Embeddings of labelled images, and the number of labels."""
        query = select(Image.sequence).where(Image.mask_sha256.is_not(None)).order_by(Image.sequence.desc())
        with self.database.read() as session:
            sequences = session.scalars(query.limit(MAX_LABELLED)).all()
        embeddings_LD = self._embeddings(model, np.array(sequences, np.int64))
        return embeddings_LD[embeddings_LD.any(axis=1)], len(sequences)

    def _embeddings(self, model: AnalysedModel, sequences: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        assert model.dimensions is not None  # noqa: S101 - the callers check it
        embeddings: npt.NDArray[np.float32] = (
            self.vectors.embeddings(model.version, model.dimensions).read(sequences).astype(np.float32)
        )
        return embeddings

    def _rows(self, sequences: Sequence[int] | npt.NDArray[np.int64]) -> list[Image]:
        """Rows of images in this order; an image that was just deleted is left out."""
        wanted = [int(sequence) for sequence in sequences]
        with self.database.read() as session:
            found = {row.sequence: row for row in session.scalars(select(Image).where(Image.sequence.in_(wanted)))}
        return [found[sequence] for sequence in wanted if sequence in found]
