"""Learning-rate schedule: hand-worked values of the first, second, middle and last step."""

import io
import json
from pathlib import Path

import pytest

from tests.trainer.conftest import make_recipe
from trainer.events import Events
from trainer.optimizer import lr_factor
from trainer.train import train


@pytest.mark.parametrize(
    ("step", "factor"),
    [(0, 1.0), (1, 1.0), (2, 0.9), (5, 0.6), (9, 0.2)],
    ids=["first", "second", "third", "middle", "last"],
)
def test_rate_lags_one_step_as_in_the_authors_code(step: int, factor: float) -> None:
    """Ten steps with power 1: after step k the authors set 1 - k / 10, so step k runs with 1 - (k - 1) / 10."""
    assert lr_factor(step, 10, power=1) == pytest.approx(factor)


def test_papers_power_applies_to_the_remaining_part_of_the_run() -> None:
    assert lr_factor(9, 10, power=0.9) == pytest.approx(0.234924, rel=1e-5)  # 0.2 ** 0.9


def test_warm_up_is_linear_over_its_steps_and_multiplies_the_decay() -> None:
    factors = [lr_factor(step, 10, power=1, warmup_steps=4) for step in range(5)]
    assert factors == pytest.approx([1 / 4, 2 / 4, 3 / 4 * 0.9, 0.8, 0.7])


def test_run_uses_the_schedule(dataset: Path, tmp_path: Path) -> None:
    stream = io.StringIO()
    with Events(stream=stream) as events:
        train(
            make_recipe(dataset, "supervised", steps=4, lr_encoder=1e-3, lr_head_factor=2.0), tmp_path / "run", events
        )
    rates = [event["lr"] for event in map(json.loads, stream.getvalue().splitlines()) if event["event"] == "progress"]
    assert rates == pytest.approx([2e-3, 2e-3, 2e-3 * 0.75**0.9, 2e-3 * 0.5**0.9])
