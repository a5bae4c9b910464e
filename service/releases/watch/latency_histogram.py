"""Histogram of durations with buckets of equal ratio, as counts by bucket that can be added and stored as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping

BUCKETS_PER_DOUBLING = 4
"""A bucket's upper bound is 19 % above its lower bound."""
SMALLEST_S = 1e-4

Histogram = Mapping[int, int]


def bucket_of(seconds: float) -> int:
    """Number of the bucket of a duration, from 0; shorter ones than 0.1 ms count as that."""
    return math.floor(BUCKETS_PER_DOUBLING * math.log2(max(seconds, SMALLEST_S) / SMALLEST_S))


def upper_bound_s(bucket: int) -> float:
    """Upper bound of a bucket, in seconds."""
    return float(SMALLEST_S * 2 ** ((bucket + 1) / BUCKETS_PER_DOUBLING))


def quantile_bucket(histogram: Histogram, share: float) -> int:
    """Bucket below whose upper bound at least `share` (0..1) of the durations lie. The histogram is not empty."""
    wanted, found = share * sum(histogram.values()), 0
    for bucket in sorted(histogram):
        found += histogram[bucket]
        if found >= wanted:
            return bucket
    return max(histogram)


def count_above(histogram: Histogram, bucket: int) -> int:
    """Count the durations in later buckets."""
    return sum(count for each, count in histogram.items() if each > bucket)
