"""The two-sample test: the definition pair by pair, every permutation of a small case, its level and its power."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from service.curation.two_sample_test import compare_samples


def naive_mmd2(recent: np.ndarray, reference: np.ndarray) -> float:
    """Means of the kernel over all pairs."""
    together = [*recent, *reference]
    width = float(np.median([math.dist(a, b) for a, b in itertools.combinations(together, 2)]))

    def mean(first: np.ndarray, second: np.ndarray) -> float:
        return float(np.mean([math.exp(-(math.dist(a, b) ** 2) / (2 * width**2)) for a in first for b in second]))

    return mean(recent, recent) + mean(reference, reference) - 2 * mean(recent, reference)


def test_mmd_equals_the_mean_over_pairs() -> None:
    rng = np.random.default_rng(0)
    recent, reference = rng.normal(1, 1, (7, 3)).astype(np.float32), rng.normal(0, 1, (9, 3)).astype(np.float32)
    found = compare_samples(recent, reference, permutations=1, rng=rng)
    assert found.mmd2 == pytest.approx(naive_mmd2(recent, reference), rel=1e-4)


def test_p_value_is_the_share_of_all_divisions_that_differ_as_much() -> None:
    recent = np.array([[0.0], [0.1]], np.float32)
    reference = np.array([[5.0], [5.1], [5.2]], np.float32)
    together = np.concatenate([recent, reference])
    divisions = list(itertools.combinations(range(5), 2))
    as_large = 0
    for chosen in divisions:
        rest = [i for i in range(5) if i not in chosen]
        as_large += naive_mmd2(together[list(chosen)], together[rest]) >= naive_mmd2(recent, reference) - 1e-9
    assert as_large == 1
    found = compare_samples(recent, reference, permutations=20_000, rng=np.random.default_rng(0))
    assert found.p_value == pytest.approx(1 / len(divisions), abs=0.01)


def test_equal_samples_differ_by_nothing() -> None:
    same = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    found = compare_samples(same, same, permutations=99, rng=np.random.default_rng(0))
    assert found.mmd2 == pytest.approx(0, abs=1e-6)
    assert found.p_value == 1


def test_false_alarms_keep_their_level_and_a_shift_is_found() -> None:
    rng = np.random.default_rng(0)

    def p_value(shift: float) -> float:
        recent, reference = rng.normal(shift, 1, (30, 4)), rng.normal(0, 1, (50, 4))
        return compare_samples(
            recent.astype(np.float32), reference.astype(np.float32), permutations=99, rng=rng
        ).p_value

    false_alarms = sum(p_value(0) <= 0.1 for _ in range(200))
    # Binomial: 20 expected, standard deviation 4.2.
    assert 8 <= false_alarms <= 33
    assert sum(p_value(0.8) <= 0.05 for _ in range(20)) >= 18
