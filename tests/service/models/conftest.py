"""The active model of a process, with two versions in the store and none activated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.models.active_model import ActiveModel
from service.state import State


@pytest.fixture
def active_model(state: State, bundle: Path, other_bundle: Path) -> Iterator[ActiveModel]:
    state.models.import_folder(bundle)
    state.models.import_folder(other_bundle)
    yield state.active_model
    state.active_model.stop()
