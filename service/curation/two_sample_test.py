"""Test whether two sets of embeddings come from one distribution: maximum mean discrepancy with permutations.

Gretton et al. 2012, "A Kernel Two-Sample Test", JMLR 13: the Gaussian kernel with the median distance as its width.
"""

# N recent images, M images of the training data, P permutations, D channels

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from service.curation.gaussian_kernel import Vectors, kernel, median_distance

PERMUTATIONS_AT_A_TIME = 200


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """Distance of two distributions."""

    mmd2: float
    """Squared maximum mean discrepancy, the biased estimate, 0..2."""
    p_value: float
    """Share of random divisions of all images that differ at least as much, above 0."""


def compare_samples(
    recent_ND: Vectors, reference_MD: Vectors, *, permutations: int, rng: np.random.Generator
) -> Discrepancy:
    """Compare two sets of at least two embeddings each, float32, by at least one permutation.

    If both come from one distribution, the probability of a p-value of at most a is at most a.
    """
    together = np.concatenate([recent_ND, reference_MD])
    gram = kernel(together, together, median_distance(together)).astype(np.float64)
    # In these terms, MMD^2 = w K w: the mean over pairs of recent images, and so on.
    weights = np.concatenate(
        [np.full(len(recent_ND), 1 / len(recent_ND)), np.full(len(reference_MD), -1 / len(reference_MD))]
    )
    observed = float(weights @ gram @ weights)
    as_large = 0
    for start in range(0, permutations, PERMUTATIONS_AT_A_TIME):
        count = min(PERMUTATIONS_AT_A_TIME, permutations - start)
        shuffled = rng.permuted(np.tile(weights, (count, 1)), axis=1)
        found_P = np.einsum("pn,pn->p", shuffled @ gram, shuffled)
        # Equal divisions must count as equal, whatever the order of the sums.
        as_large += int(np.count_nonzero(found_P >= observed - 1e-12))
    return Discrepancy(mmd2=max(observed, 0.0), p_value=(1 + as_large) / (1 + permutations))
