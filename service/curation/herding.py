"""Choose which images to label next: Uncertainty Herding (arXiv 2412.20644), at every number of labels.

The coverage of a set S of images is the sum over reference images r of u(r) * max over s in S of k(r, s), with a
Gaussian kernel k on embeddings and the uncertainty u. Labelled images are in S; the image that adds most coverage is
chosen next. With equal u it is MaxHerding (arXiv 2407.12212).
"""

# C candidates, R reference images, L labelled images, D channels

from __future__ import annotations

import heapq

import numpy as np
import numpy.typing as npt

from service.curation.gaussian_kernel import MIN_WIDTH, Vectors, kernel, median_distance, squared_distances

LABELS_PER_CLASS = 10
"""With so many labels for each class, uncertainty has half of its weight."""
BLOCK = 1024
"""Images whose kernel is computed at a time."""

Values = npt.NDArray[np.float32]


def herd(
    candidates_CD: Vectors, references_RD: Vectors, weights_R: Values, labelled_LD: Vectors, *, width: float, count: int
) -> list[int]:
    """Choose candidates greedily, in the order of choice.

    Args:
        candidates_CD: Embeddings of the images that can be chosen, float32.
        references_RD: Embeddings of the images to cover, float32.
        weights_R: Weight of each, >= 0.
        labelled_LD: Embeddings of the images that count as chosen already; may be empty.
        width: Of the kernel.
        count: Number of candidates to choose; fewer if there are fewer.

    Returns:
        Indices of candidates.
    """
    covered_R = coverage(references_RD, labelled_LD, width)
    kernel_CR = np.empty((len(candidates_CD), len(references_RD)), np.float32)
    gains_C = np.empty(len(candidates_CD), np.float32)
    # In blocks: for 20,000 candidates and 1,000 references, a kernel takes 80 MB.
    for start in range(0, len(candidates_CD), BLOCK):
        block = slice(start, start + BLOCK)
        kernel_CR[block] = kernel(candidates_CD[block], references_RD, width)
        gains_C[block] = np.maximum(kernel_CR[block] - covered_R, 0) @ weights_R
    # Lazily: a gain only shrinks as others are chosen, so one that is still the largest when updated is the largest.
    heap = [(-float(gain), index) for index, gain in enumerate(gains_C)]
    heapq.heapify(heap)
    chosen: list[int] = []
    while heap and len(chosen) < count:
        _, index = heap[0]
        gain = float(np.maximum(kernel_CR[index] - covered_R, 0) @ weights_R)
        heapq.heapreplace(heap, (-gain, index))
        if heap[0][1] == index:
            heapq.heappop(heap)
            chosen.append(index)
            covered_R = np.maximum(covered_R, kernel_CR[index])
    return chosen


def coverage(references_RD: Vectors, chosen_LD: Vectors, width: float) -> Values:
    """Largest kernel of each reference with a chosen image, float32 [R]; 0 without any."""
    covered_R = np.zeros(len(references_RD), dtype=np.float32)
    for start in range(0, len(chosen_LD), BLOCK):
        block_R = kernel(references_RD, chosen_LD[start : start + BLOCK], width).max(axis=1)
        covered_R = np.maximum(covered_R, block_R)
    return covered_R


def herding_width(references_RD: Vectors, labelled_LD: Vectors) -> float:
    """Width of the kernel, which shrinks as labels fill the space (arXiv 2412.20644, section 4).

    Deviation: the mean distance of a reference image to the nearest labelled one, not the smallest distance between
    labelled images, which is 0 for two of one scene, and small while whole regions have no label. Without labels: the
    median of all distances.
    """
    if not len(labelled_LD):
        return median_distance(references_RD)
    nearest_R = np.full(len(references_RD), np.inf, np.float32)
    for start in range(0, len(labelled_LD), BLOCK):
        block_R = squared_distances(references_RD, labelled_LD[start : start + BLOCK]).min(axis=1)
        nearest_R = np.minimum(nearest_R, block_R)
    return max(float(np.sqrt(nearest_R).mean()), MIN_WIDTH)


def flattened(uncertainty_R: npt.NDArray[np.float64], labels: int, classes: int) -> Values:
    """Weights from uncertainties: equal without labels, as few labels make them unreliable; mean 1, float32 [R].

    Deviation: the paper flattens them by calibrating confidences on the labels; this needs only the number of labels.
    """
    mean = float(uncertainty_R.mean()) if len(uncertainty_R) else 0.0
    trust = labels / (labels + LABELS_PER_CLASS * classes)
    relative_R = uncertainty_R / mean if mean > 0 else np.ones_like(uncertainty_R)
    return (1 - trust + trust * relative_R).astype(np.float32)
