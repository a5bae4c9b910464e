"""Find near-duplicates of validation images among others.

Clusters do not suffice: of two almost equal images, each may be more similar to another leader.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from service.analyses.analysed_range import analysed_model
from service.analyses.nearest_rows import Fingerprint, Vectors, fingerprint_files
from service.curation.perceptual_hash import Hashes
from service.storage.database import Database
from service.storage.vector_file import VectorFolder

Numbered = Sequence[tuple[int, str]]
"""Sequences and ids of images."""


class ValidationNeighbours:
    """The fingerprints of some validation images as a model sees them.

    `hash_of` returns the perceptual hash of the image with an id, for images that are not analysed yet.
    """

    def __init__(
        self,
        database: Database,
        vectors: VectorFolder,
        version: str,
        validation: Numbered,
        hash_of: Callable[[str], int],
    ) -> None:
        self._files = fingerprint_files(vectors, analysed_model(database, version))
        self._hash_of = hash_of
        embeddings_ND, hashes_N = self._rows(validation)
        self._images = [
            Fingerprint(None if embeddings_ND is None else embeddings_ND[index], int(hashes_N[index]))
            for index in range(len(validation))
        ]

    def near(self, images: Numbered) -> npt.NDArray[np.bool_]:
        """Whether each image is a near-duplicate of a validation image, bool [N]."""
        if not self._images:
            return np.zeros(len(images), np.bool_)
        excess_NB = self._files.excess(self._images, *self._rows(images))
        near_N: npt.NDArray[np.bool_] = np.any(excess_NB >= 0, axis=1)
        return near_N

    def _rows(self, images: Numbered) -> tuple[Vectors | None, Hashes]:
        embeddings_ND, hashes_N = self._files.rows([sequence for sequence, _ in images])
        for index in np.flatnonzero(hashes_N == 0).tolist():
            hashes_N[index] = self._hash_of(images[index][1])
        return embeddings_ND, hashes_N
