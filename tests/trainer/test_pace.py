"""Seconds per step and time left, with a clock of the test."""

from pathlib import Path

import pytest

from tests.trainer.conftest import make_recipe
from trainer.pace import Pace


def test_time_left_counts_steps_and_evaluations_without_the_warm_up() -> None:
    now = 0.0
    pace = Pace(make_recipe(Path(), steps=100, evaluate_every=25).train, clock=lambda: now)
    for number in range(1, 6):
        now += 60.0 if number <= 2 else 2.0
        pace.step()
        assert pace.due == (number == 5)
    assert pace.seconds_per_step == pytest.approx(2.0)
    assert pace.seconds_left(5) == pytest.approx(95 * 2)
    with pace.evaluation():
        now += 30.0
    now += 2.0
    pace.step()
    assert pace.seconds_per_step == pytest.approx(2.0)
    # 94 steps, the evaluations after steps 25, 50 and 75, and the last one.
    assert pace.seconds_left(6) == pytest.approx(94 * 2 + 4 * 30)
