"""Find the earlier image of which each new image is a near-duplicate.

The first image of a cluster leads it. A later image joins the most similar leader within the threshold, else it leads a
cluster of its own. So a slow video is several clusters, not one chain from its first to its last frame.
"""

from __future__ import annotations

import numpy as np
from sqlalchemy import select

from service.analyses.nearest_rows import Fingerprint, FingerprintFiles, Sequences
from service.images.duplicate_clusters import cluster_id
from service.storage.database import Database
from service.storage.tables import Image

CONSIDERED = 100
"""Most similar images whose leaders are considered."""


def find_leaders(database: Database, files: FingerprintFiles, images: dict[int, Fingerprint]) -> dict[int, int]:
    """Map the sequences of near-duplicates to those of their leaders.

    Args:
        database: The pool's.
        files: Fingerprints of earlier images.
        images: Fingerprints of new images by their sequence, in ascending order; all rows of `files` before the first
            are compared, and the new images with each other.
    """
    if not images:
        return {}
    similar = files.near_duplicates(list(images.values()), min(images), CONSIDERED)
    leaders: dict[int, int] = {}
    leading: list[int] = []
    for (sequence, image), earlier in zip(images.items(), similar, strict=True):
        candidates = {each: files.rows([each]) for each in _leaders_of(database, earlier)}
        scores = {each: float(files.excess([image], *rows)[0, 0]) for each, rows in candidates.items()}
        for each in leading:
            scores[each] = _excess_of_two(files, image, images[each])
        best = max(scores, key=lambda each: (scores[each], -each), default=None)
        if best is not None and scores[best] >= 0:
            leaders[sequence] = best
        else:
            leading.append(sequence)
    return leaders


def _leaders_of(database: Database, sequences: Sequences) -> list[int]:
    if not len(sequences):
        return []
    clusters = select(cluster_id()).where(Image.sequence.in_(sequences.tolist()))
    with database.read() as session:
        return list(session.scalars(select(Image.sequence).where(Image.id.in_(clusters))))


def _excess_of_two(files: FingerprintFiles, image: Fingerprint, other: Fingerprint) -> float:
    embedding_1D = None if other.embedding_D is None else other.embedding_D[None]
    return float(files.excess([image], embedding_1D, np.array([other.perceptual_hash], np.uint64))[0, 0])
