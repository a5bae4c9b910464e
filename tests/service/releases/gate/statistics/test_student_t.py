"""Student's t distribution."""

from __future__ import annotations

import pytest

from service.releases.gate.statistics.student_t import t_cdf, t_quantile


def test_quantiles_equal_those_of_printed_tables() -> None:
    # Abramowitz and Stegun, table 26.10.
    found = {dof: round(t_quantile(0.95, dof), 3) for dof in (1, 2, 3, 10, 29, 120)}
    assert found == {1: 6.314, 2: 2.920, 3: 2.353, 10: 1.812, 29: 1.699, 120: 1.658}


def test_distribution_equals_scipy() -> None:
    stats = pytest.importorskip("scipy.stats", reason="compares with scipy")
    for dof in (1, 2, 3, 4, 17, 28, 500):
        for t in (-9.0, -1.3, 0.0, 0.4, 6.0):
            assert t_cdf(t, dof) == pytest.approx(stats.t.cdf(t, dof), abs=1e-12)
        for probability in (0.001, 0.3, 0.95):
            assert t_quantile(probability, dof) == pytest.approx(stats.t.ppf(probability, dof), abs=1e-9)
