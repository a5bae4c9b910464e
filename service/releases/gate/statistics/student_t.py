"""Student's t distribution for whole degrees of freedom.

Closed sums: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4. The service does not install
scipy, which is larger than the service itself.
"""

from __future__ import annotations

import math

BISECTIONS = 100
LARGEST = 1e9


def t_cdf(t: float, dof: int) -> float:
    """Probability of a value of at most `t`, 0..1, with `dof` >= 1 degrees of freedom."""
    theta = math.atan(t / math.sqrt(dof))
    cosine_squared = math.cos(theta) ** 2
    odd = dof % 2
    # The sum ends at the power dof - 2; each term is the one before times cos^2 * j / (j + 1).
    term = math.cos(theta) if odd else 1.0
    total = 0.0
    for power in range(odd, dof - 1, 2):
        total += term
        term *= cosine_squared * (power + 1) / (power + 2)
    total *= math.sin(theta)
    two_sided = 2 / math.pi * (theta + total) if odd else total
    return (1 + two_sided) / 2


def t_quantile(probability: float, dof: int) -> float:
    """Value that is exceeded with the probability 1 - `probability`, which is between 0 and 1."""
    low, high = -LARGEST, LARGEST
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if t_cdf(middle, dof) < probability else (low, middle)
    return (low + high) / 2
