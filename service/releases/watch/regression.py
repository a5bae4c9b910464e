"""Compare a released model's traffic with that of the model before it."""

from __future__ import annotations

import math
from collections import Counter

from sqlalchemy.orm import Session

from service.releases.watch.latency_histogram import (
    BUCKETS_PER_DOUBLING,
    Kind,
    Latencies,
    by_kind,
    count_above,
    quantile_bucket,
    upper_bound_s,
)
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
1.4: images of one size differ by as much."""
MIN_INFERENCES = 20
"""Fewer inferences, of a kind or during a canary, are too few to compare with."""


def read_base(session: Session, release: Release) -> Counts:
    """Return the counts of the model before, since the activation that the candidate was judged against."""
    ids = [] if release.judged_against is None else [release.judged_against]
    return read_counts(session, release.base_version or "", ids)


def read_both(session: Session, release: Release) -> tuple[Counts, Counts]:
    """Return the counts of the candidate, as canary and since its activation, and of the model before it.

    Those of the model before begin with the canary, if there was one, and it had a few inferences since: both then had
    the same load and the same kinds of images.
    """
    ids = [each for each in (release.judged_against, release.activation_id) if each is not None]
    before = read_base(session, release)
    if release.before_canary is not None:
        meanwhile = before.since(Counts.from_json(release.before_canary))
        before = meanwhile if meanwhile.requests >= MIN_INFERENCES else before
    return read_counts(session, release.version, ids), before


def find_regression(new: Counts, old: Counts, level: float) -> str | None:
    """Return the sentence that says how the new model is worse than the old one; None if that is not shown.

    Wrong with at most the probability `level`, however often one looks.
    """
    failed, failed_before = Proportion(new.errors, new.requests), Proportion(old.errors, old.requests)
    increase = failed.value - failed_before.value
    if increase >= MIN_ERROR_INCREASE and is_larger(failed, failed_before, level / TESTS):
        return f"{_of(failed)} inferences failed, and {_of(failed_before)} of the model before"
    return _find_slower(new.latency, old.latency, level / TESTS)


def _find_slower(new: Latencies, old: Latencies, level: float) -> str | None:
    """Compare each kind for which the old model says what is slow; each has its part of the level."""
    new_kinds = by_kind(new)
    old_kinds = {kind: found for kind, found in by_kind(old).items() if found.total() >= MIN_INFERENCES}
    for kind, theirs in old_kinds.items():
        ours, limit = new_kinds.get(kind, Counter()), quantile_bucket(theirs, QUANTILE) + _slower_buckets(kind)
        slow, slow_before = (Proportion(count_above(each, limit), each.total()) for each in (ours, theirs))
        if is_larger(slow, slow_before, level / len(old_kinds)):
            return (
                f"{_of(slow)} inferences of one size and number of threads took longer than "
                f"{upper_bound_s(limit):.3g} s of computing, and {_of(slow_before)} of the model before"
            )
    return None


def _slower_buckets(kind: Kind) -> int:
    """Buckets by which an inference must be slower. One of n threads may do the work of all if the others must wait."""
    _, threads, _ = kind
    return SLOWER_BUCKETS + math.ceil(BUCKETS_PER_DOUBLING * math.log2(threads))


def _of(seen: Proportion) -> str:
    return f"{seen.events} of {seen.requests}"
