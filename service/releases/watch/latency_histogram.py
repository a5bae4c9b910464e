"""Histogram of durations with buckets of equal ratio, apart for each kind of inference.

Larger images take longer, the load decides on the number of threads, and the first inference of a size allocates
memory. A model may be compared with another only on the same kind of inferences. Otherwise it would look slower as soon
as clients send other images, or more of them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

BUCKETS_PER_DOUBLING = 4
"""A bucket's upper bound is 19 % above its lower bound."""
SIZES_PER_DOUBLING = 2
"""Images of one size differ by less than 41 % in their pixels."""
SMALLEST_S = 1e-4

Kind = tuple[int, int, int]
"""Size of the image, threads, and 1 for the first inference of its height and width by as many threads, else 0."""
Cell = tuple[int, int, int, int]
"""The kind of an inference and the bucket of its duration."""
Latencies = Counter[Cell]
"""Number of inferences in each cell."""
Histogram = Mapping[int, int]
"""Number of inferences in each bucket."""


def cell_of(seconds: float, *, pixels: int, threads: int = 1, is_first: bool = False) -> Cell:
    """Cell of an inference; durations below 0.1 ms count as that."""
    bucket = math.floor(BUCKETS_PER_DOUBLING * math.log2(max(seconds, SMALLEST_S) / SMALLEST_S))
    return math.floor(SIZES_PER_DOUBLING * math.log2(pixels)), threads, int(is_first), bucket


def by_kind(latencies: Latencies) -> dict[Kind, Counter[int]]:
    """Return the histogram of each kind."""
    found: dict[Kind, Counter[int]] = {}
    for (*kind, bucket), count in latencies.items():
        found.setdefault((kind[0], kind[1], kind[2]), Counter())[bucket] += count
    return found


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


def quantile_s(latencies: Latencies, share: float) -> float | None:
    """Duration in seconds, at most 19 % too high, that `share` (0..1) of the inferences do not exceed; None: none."""
    buckets = sum(by_kind(latencies).values(), Counter[int]())
    return upper_bound_s(quantile_bucket(buckets, share)) if buckets else None


def count_above(histogram: Histogram, bucket: int) -> int:
    """Count the durations in later buckets."""
    return sum(count for each, count in histogram.items() if each > bucket)
