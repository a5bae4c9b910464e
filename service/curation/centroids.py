"""Choose the first images to label, when nothing is labelled yet: those nearest to the centroids of k-means."""

# N images, K clusters, D channels

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from service.curation.gaussian_kernel import Vectors, squared_distances

ROUNDS = 10


def central_images(embeddings_ND: Vectors, count: int, rng: np.random.Generator) -> list[int]:
    """Indices of the images nearest to the centroids of `count` clusters, the largest cluster first; at most N."""
    if len(embeddings_ND) <= count:
        return list(range(len(embeddings_ND)))
    centroids_KD = _spread_out(embeddings_ND, count, rng)
    for _ in range(ROUNDS):
        cluster_N = squared_distances(embeddings_ND, centroids_KD).argmin(axis=1)
        sizes_K = np.bincount(cluster_N, minlength=count)
        sums_KD = (cluster_N == np.arange(count)[:, None]).astype(np.float32) @ embeddings_ND
        # An empty cluster, of equal images, keeps its centroid.
        centroids_KD = np.where(sizes_K[:, None] > 0, sums_KD / np.maximum(sizes_K, 1)[:, None], centroids_KD)
    return _nearest_images(squared_distances(embeddings_ND, centroids_KD), np.argsort(-sizes_K, kind="stable"))


def _spread_out(embeddings_ND: Vectors, count: int, rng: np.random.Generator) -> Vectors:
    """Draw the first centroids far from each other (k-means++, Arthur and Vassilvitskii 2007)."""
    chosen = [int(rng.integers(len(embeddings_ND)))]
    nearest_N = squared_distances(embeddings_ND, embeddings_ND[chosen])[:, 0].astype(np.float64)
    while len(chosen) < count:
        total = nearest_N.sum()
        shares_N = nearest_N / total if total > 0 else None
        chosen.append(int(rng.choice(len(embeddings_ND), p=shares_N)))
        nearest_N = np.minimum(nearest_N, squared_distances(embeddings_ND, embeddings_ND[chosen[-1:]])[:, 0])
    return embeddings_ND[chosen]


def _nearest_images(distances_NK: Vectors, order: npt.NDArray[np.intp]) -> list[int]:
    """The nearest image to each centroid in this order, each image once."""
    chosen: list[int] = []
    for cluster in order.tolist():
        distances_N = distances_NK[:, cluster].copy()
        distances_N[chosen] = np.inf
        chosen.append(int(distances_N.argmin()))
    return chosen
