"""A slot with two versions in the store and none activated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.models.slot import Slot
from service.state import State


@pytest.fixture
def slot(state: State, bundle: Path, other_bundle: Path) -> Iterator[Slot]:
    state.models.import_folder(bundle)
    state.models.import_folder(other_bundle)
    yield state.slot
    state.slot.stop()
