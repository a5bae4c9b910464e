"""Search files of vectors for the rows most similar to some images."""

# B images, N rows, D channels

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.curation.perceptual_hash import Hashes, similarity
from service.storage.analysis_tables import AnalysedModel
from service.storage.vector_file import VectorFile, VectorFolder

Vectors = npt.NDArray[np.float32]
Values = npt.NDArray[np.float32]
Sequences = npt.NDArray[np.int64]

BLOCK_ROWS = 8192
HASH_THRESHOLD = 0.9
"""Least share of equal bits of near-duplicates: at most 6 of 64 differ."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What near-duplicates have in common."""

    embedding_D: Vectors | None
    """Length 1; None: the model has no embeddings."""
    perceptual_hash: int


@dataclass(frozen=True, slots=True)
class FingerprintFiles:
    """The fingerprints of all images, of one model."""

    embeddings: VectorFile | None
    hashes: VectorFile
    threshold: float | None
    """Least cosine of near-duplicates; None: not known, so hashes are compared."""

    def excess(self, images: list[Fingerprint], embeddings_ND: Vectors | None, hashes_N: Hashes) -> Values:
        """Similarity of each row to each image above the threshold, [N, B]; 0 or more for near-duplicates.

        By the embedding where both have one, otherwise by the hash.
        """
        excess_NB = np.empty((len(hashes_N), len(images)), np.float32)
        by_embedding_NB = self._have_embeddings(images, embeddings_ND, len(hashes_N))
        if embeddings_ND is not None and self.threshold is not None and by_embedding_NB.any():
            columns = [np.zeros_like(embeddings_ND[0]) if i.embedding_D is None else i.embedding_D for i in images]
            excess_NB[:] = embeddings_ND @ np.stack(columns, axis=1) - np.float32(self.threshold)
        for index, image in enumerate(images):
            by_hash_N = ~by_embedding_NB[:, index]
            excess_NB[by_hash_N, index] = similarity(hashes_N[by_hash_N], image.perceptual_hash) - HASH_THRESHOLD
        return excess_NB

    def near_duplicates(self, images: list[Fingerprint], before: int, limit: int) -> list[Sequences]:
        """Sequences below `before` that are near-duplicates of each image, the most similar first, at most `limit`."""
        found = [(np.zeros(0, np.float32), np.zeros(0, np.int64)) for _ in images]
        for start, embeddings_ND, hashes_N in self._blocks(before):
            excess_NB = self.excess(images, embeddings_ND, hashes_N)
            for index in np.flatnonzero((excess_NB >= 0).any(axis=0)):
                near_N = np.flatnonzero(excess_NB[:, index] >= 0)
                found[index] = _largest(found[index], excess_NB[near_N, index], near_N + start, limit)
        return [sequences for _, sequences in found]

    def rows(self, sequences: Sequences | list[int]) -> tuple[Vectors | None, Hashes]:
        """Embeddings and hashes of these images."""
        embeddings_ND = None if self.embeddings is None else self.embeddings.read(sequences).astype(np.float32)
        return embeddings_ND, self.hashes.read(sequences)[:, 0]

    def _have_embeddings(
        self, images: list[Fingerprint], embeddings_ND: Vectors | None, rows: int
    ) -> npt.NDArray[np.bool_]:
        """Whether row and image have embeddings that can be compared, bool [N, B]. Zeros are none."""
        if self.threshold is None or embeddings_ND is None:
            return np.zeros((rows, len(images)), np.bool_)
        have_B = np.array([image.embedding_D is not None and bool(image.embedding_D.any()) for image in images])
        both_NB: npt.NDArray[np.bool_] = np.any(embeddings_ND, axis=1)[:, None] & have_B[None]
        return both_NB

    def _blocks(self, before: int) -> Iterator[tuple[int, Vectors | None, Hashes]]:
        for start in range(0, before, BLOCK_ROWS):
            stop = min(start + BLOCK_ROWS, before)
            part = None if self.embeddings is None else self.embeddings.slice(start, stop).astype(np.float32)
            yield start, part, self.hashes.slice(start, stop)[:, 0]


def fingerprint_files(vectors: VectorFolder, model: AnalysedModel | None) -> FingerprintFiles:
    """Files of a model; the hashes alone unless it has a threshold."""
    if model is None or model.dimensions is None or model.duplicate_threshold is None:
        return FingerprintFiles(None, vectors.hashes(), None)
    return FingerprintFiles(
        vectors.embeddings(model.version, model.dimensions), vectors.hashes(), model.duplicate_threshold
    )


def most_similar(embeddings: VectorFile, embedding_D: Vectors, limit: int) -> Sequences:
    """Sequences of the images with the largest cosine, the largest first; images without an embedding are left out."""
    found = np.zeros(0, np.float32), np.zeros(0, np.int64)
    rows = embeddings.rows()
    for start in range(0, rows, BLOCK_ROWS):
        block_ND = embeddings.slice(start, min(start + BLOCK_ROWS, rows)).astype(np.float32)
        present_N = np.flatnonzero(block_ND.any(axis=1))
        found = _largest(found, block_ND[present_N] @ embedding_D, present_N + start, limit)
    return found[1]


def _largest(
    found: tuple[Values, Sequences], values_N: Values, sequences_N: Sequences, limit: int
) -> tuple[Values, Sequences]:
    """The largest values of both, with their sequences, in descending order."""
    values = np.concatenate([found[0], values_N])
    order = np.argsort(-values, kind="stable")[:limit]
    return values[order], np.concatenate([found[1], sequences_N])[order]
