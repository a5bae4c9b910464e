"""Losses of eight steps of each method on generated data equal tests/golden/losses.json."""

import json
from pathlib import Path

import pytest

from tests.trainer.make_golden import PATH, golden_losses
from trainer.step import METHODS


@pytest.mark.parametrize("method", METHODS)
def test_losses_equal_the_golden_curve(method: str, tmp_path: Path) -> None:
    golden = json.loads(PATH.read_text())[method]
    assert golden_losses(method, tmp_path) == pytest.approx(golden, rel=1e-3)
