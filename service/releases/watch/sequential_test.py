"""Sequential test of two proportions that is valid at every look, so that traffic can be watched continuously.

An ordinary test that is repeated after every request finds a difference sooner or later, even if there is none. Here
the evidence is an e-process: if the new proportion is not above the old one, it ever exceeds 1 / level with at most the
probability `level`, whenever one looks and however the requests of both models are mixed.

The evidence is the likelihood of the counts, averaged over all pairs of proportions, divided by the largest likelihood
of any pair whose new proportion is not above the old one. The average (each proportion has a Beta(1/2, 1/2) prior) is
Robbins' mixture, as in the sequential tests of canaries by Lindon et al. (KDD 2022, arXiv 2205.14762). That the
quotient is valid for a hypothesis with many pairs is universal inference (Wasserman et al. 2020, arXiv 1912.11436).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

PRIOR = 0.5


@dataclass(frozen=True, slots=True)
class Proportion:
    """Events, such as failures, among requests."""

    events: int
    requests: int

    @property
    def value(self) -> float:
        """0..1; 0 without requests."""
        return self.events / max(self.requests, 1)


def log_evidence(new: Proportion, old: Proportion) -> float:
    """Natural logarithm of the evidence that the new proportion is larger; -inf if it is not larger in the sample."""
    if new.value <= old.value:
        return -math.inf
    # The largest likelihood of the hypothesis is then that of two equal proportions.
    both = Proportion(new.events + old.events, new.requests + old.requests)
    return _log_mixture(new) + _log_mixture(old) - _log_likelihood(both, both.value)


def is_larger(new: Proportion, old: Proportion, level: float) -> bool:
    """Whether the new proportion is larger; wrong, at any look, with at most the probability `level`."""
    return log_evidence(new, old) >= -math.log(level)


def _log_mixture(seen: Proportion) -> float:
    return _log_beta(seen.events + PRIOR, seen.requests - seen.events + PRIOR) - _log_beta(PRIOR, PRIOR)


def _log_likelihood(seen: Proportion, value: float) -> float:
    others = seen.requests - seen.events
    return _times_log(seen.events, value) + _times_log(others, 1 - value)


def _times_log(count: int, value: float) -> float:
    return count * math.log(value) if count else 0.0


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
