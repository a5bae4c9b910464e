"""Conversion of Triton's priorities and timeouts."""

from __future__ import annotations

import pytest

from service.open_inference.parameters import infer_priority


@pytest.mark.parametrize(("priority", "urgency"), [(0, None), (1, 0), (2, 1), (4, 3), (8, 7), (4_000_000_000, 7)])
def test_priority_1_is_the_most_urgent_and_0_unset(priority: int, urgency: int | None) -> None:
    assert infer_priority({"priority": priority}).urgency == urgency


def test_timeout_is_in_microseconds_and_0_means_none() -> None:
    assert infer_priority({"timeout": 1_500_000}).timeout_s == 1.5
    assert infer_priority({"timeout": 0}).timeout_s is None
