"""A queued run with a worker that can train."""

from __future__ import annotations

import pytest

from service.state import State
from service.storage.tables import Run
from tests.service.runs.conftest import (
    fill,
    register_worker,
)


@pytest.fixture
def run(loop: State) -> Run:
    fill(loop)
    register_worker(loop)
    return loop.retrain_policy.start("manual")
