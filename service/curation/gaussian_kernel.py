"""The Gaussian kernel on embeddings, and widths for it."""

# N M vectors, D channels

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]

MIN_WIDTH = 1e-3
"""Also for images that are all alike."""


def squared_distances(vectors_ND: Vectors, others_MD: Vectors) -> Vectors:
    """Squared Euclidean distances of all pairs, float32 [N, M]."""
    squares_N, squares_M = (np.einsum("nd,nd->n", each, each) for each in (vectors_ND, others_MD))
    distances_NM: Vectors = vectors_ND @ others_MD.T
    distances_NM *= -2
    distances_NM += squares_N[:, None]
    distances_NM += squares_M[None]
    np.maximum(distances_NM, 0, out=distances_NM)
    return distances_NM


def kernel(vectors_ND: Vectors, others_MD: Vectors, width: float) -> Vectors:
    """exp(-distance^2 / (2 width^2)) of all pairs, 0..1, float32 [N, M]."""
    distances_NM = squared_distances(vectors_ND, others_MD)
    distances_NM /= np.float32(-2 * width**2)
    return np.exp(distances_NM, out=distances_NM)


def median_distance(vectors_ND: Vectors) -> float:
    """Median distance of all pairs of at least two vectors: the usual width if nothing else is known."""
    above = np.triu_indices(len(vectors_ND), k=1)
    return max(float(np.median(np.sqrt(squared_distances(vectors_ND, vectors_ND)[above]))), MIN_WIDTH)
