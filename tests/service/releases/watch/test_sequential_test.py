"""The sequential test: hand-worked evidence, and its level and power by simulation with a look after every request."""

from __future__ import annotations

import math

import numpy as np
import pytest

from service.releases.watch.sequential_test import Proportion, is_larger, log_evidence

LEVEL, RUNS, REQUESTS = 0.05, 200, 500


def test_evidence_of_one_failure_after_one_success() -> None:
    """Each mixture is B(3/2, 1/2) / B(1/2, 1/2) = 1/2; the best equal proportions are 1/2: (1/4) / (1/4)."""
    assert log_evidence(Proportion(1, 1), Proportion(0, 1)) == pytest.approx(0)


def test_evidence_of_two_failures_after_two_successes() -> None:
    """Each mixture is B(5/2, 1/2) / B(1/2, 1/2) = 3/8, the largest likelihood 1/16: 9/64 * 16 = 9/4."""
    assert log_evidence(Proportion(2, 2), Proportion(0, 2)) == pytest.approx(math.log(9 / 4))


def test_smaller_or_equal_proportion_is_no_evidence() -> None:
    for new, old in ((Proportion(0, 0), Proportion(5, 10)), (Proportion(1, 10), Proportion(2, 20))):
        assert log_evidence(new, old) == -math.inf


def test_without_earlier_requests_nothing_is_shown() -> None:
    assert not is_larger(Proportion(1000, 1000), Proportion(0, 0), LEVEL)


def ever_larger(rng: np.random.Generator, old: float, new: float, before: int) -> int | None:
    """Simulate one release: the number of its requests after which the test says larger, if ever."""
    seen = Proportion(int(rng.binomial(before, old)), before)
    events = np.cumsum(rng.random(REQUESTS) < new)
    looks = (n for n in range(1, REQUESTS + 1) if is_larger(Proportion(int(events[n - 1]), n), seen, LEVEL))
    return next(looks, None)


@pytest.mark.parametrize(("proportion", "before"), [(0.01, 1000), (0.05, 20), (0.3, 50), (0.5, 5)])
def test_equal_proportions_are_found_larger_at_most_at_the_level(proportion: float, before: int) -> None:
    rng = np.random.default_rng(0)
    found = sum(ever_larger(rng, proportion, proportion, before) is not None for _ in range(RUNS))
    assert found <= RUNS * LEVEL + 2 * math.sqrt(RUNS * LEVEL * (1 - LEVEL))


@pytest.mark.parametrize(
    ("old", "new", "before", "within"), [(0.0, 1.0, 5, 8), (0.0, 0.1, 1000, 60), (0.05, 0.3, 200, 80)]
)
def test_larger_proportion_is_found_soon(old: float, new: float, before: int, within: int) -> None:
    rng = np.random.default_rng(0)
    found = [ever_larger(rng, old, new, before) or REQUESTS for _ in range(50)]
    assert np.median(found) <= within
