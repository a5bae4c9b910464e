"""Compare a released model's traffic with that of the model before it."""

from __future__ import annotations

from sqlalchemy.orm import Session

from service.releases.watch.latency_histogram import count_above, quantile_bucket, upper_bound_s
from service.releases.watch.sequential_test import Proportion, is_larger
from service.releases.watch.traffic_counters import Counts, read_counts
from service.storage.tables import Release

TESTS = 2
"""Each of the two tests has half of the level."""
MIN_ERROR_INCREASE = 0.01
"""Smaller differences of the share of failed inferences do not matter, 0..1."""
QUANTILE = 0.95
SLOWER_BUCKETS = 2
"""An inference is slow if it takes longer than the 95th percentile of the model before by so many buckets, a factor of
1.4: the load and the sizes of the images change, too."""


def read_both(session: Session, release: Release) -> tuple[Counts, Counts]:
    """Return the counts of the candidate, as canary and since its activation, and of the model before it."""
    ids = [each for each in (release.judged_against, release.activation_id) if each is not None]
    before = [release.judged_against] if release.judged_against is not None else []
    return read_counts(session, release.version, ids), read_counts(session, release.base_version or "", before)


def find_regression(new: Counts, old: Counts, level: float) -> str | None:
    """Return the sentence that says how the new model is worse than the old one; None if that is not shown.

    Wrong with at most the probability `level`, however often one looks.
    """
    failed, failed_before = Proportion(new.errors, new.requests), Proportion(old.errors, old.requests)
    increase = failed.value - failed_before.value
    if increase >= MIN_ERROR_INCREASE and is_larger(failed, failed_before, level / TESTS):
        return f"{_of(failed)} inferences failed, and {_of(failed_before)} of the model before"
    if not old.latency:
        return None
    limit = quantile_bucket(old.latency, QUANTILE) + SLOWER_BUCKETS
    slow, slow_before = (Proportion(count_above(each.latency, limit), each.latency.total()) for each in (new, old))
    if is_larger(slow, slow_before, level / TESTS):
        seconds = upper_bound_s(limit)
        return f"{_of(slow)} inferences took longer than {seconds:.3g} s, and {_of(slow_before)} of the model before"
    return None


def _of(seen: Proportion) -> str:
    return f"{seen.events} of {seen.requests}"
