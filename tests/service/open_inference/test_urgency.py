"""Triton's priorities and timeouts in the service's terms."""

from __future__ import annotations

import pytest

from service.open_inference.parameters import urgency_of


@pytest.mark.parametrize(("priority", "level"), [(0, None), (1, 0), (2, 1), (4, 3), (8, 7), (4_000_000_000, 7)])
def test_one_goes_first_and_none_leaves_it_open(priority: int, level: int | None) -> None:
    assert urgency_of({"priority": priority}).level == level


def test_microseconds() -> None:
    assert urgency_of({"timeout": 1_500_000}).timeout_s == 1.5
    assert urgency_of({"timeout": 0}).timeout_s is None
