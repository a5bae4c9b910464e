"""Find near-duplicates of validation images among others.

Clusters do not suffice: of two almost equal images, each may be more similar to another leader.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from service.analyses.analysed_range import analysed_model
from service.analyses.nearest_rows import Fingerprint, fingerprint_files
from service.storage.database import Database
from service.storage.vector_file import VectorFolder


class ValidationNeighbours:
    """The fingerprints of some validation images, given by their sequences, as a model sees them."""

    def __init__(self, database: Database, vectors: VectorFolder, version: str, validation: Sequence[int]) -> None:
        self._files = fingerprint_files(vectors, analysed_model(database, version))
        embeddings_ND, hashes_N = self._files.rows(list(validation))
        self._images = [
            Fingerprint(None if embeddings_ND is None else embeddings_ND[index], int(hashes_N[index]))
            for index in range(len(validation))
        ]

    def near(self, sequences: Sequence[int]) -> npt.NDArray[np.bool_]:
        """Whether each image is a near-duplicate of a validation image, bool [N]; False if it is not analysed."""
        if not self._images:
            return np.zeros(len(sequences), np.bool_)
        excess_NB = self._files.excess(self._images, *self._files.rows(list(sequences)))
        near_N: npt.NDArray[np.bool_] = np.any(excess_NB >= 0, axis=1)
        return near_N
