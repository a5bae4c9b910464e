"""A pool, an active model with embeddings (the mean colour), and the analyst of a worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from service.analyses.analyst import Analyst
from service.settings import Settings
from service.state import State, open_state
from service.worker.background_analysis import make_analyst
from tests.service.conftest import encoded
from tests.service.tiny_bundle import write_bundle

VERSION = "20260101T000000-aaaaaaaa"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle", embedding=True)


@pytest.fixture
def pool(make_settings: Callable[..., Settings]) -> Iterator[State]:
    """The stores, with the model active and an empty pool."""
    opened = open_state(make_settings())
    opened.models.ensure_start_model()
    yield opened
    opened.close()


@pytest.fixture
def analyst(pool: State) -> Analyst:
    return make_analyst(pool)


def analyse_all(analyst: Analyst) -> int:
    """Analyse until nothing is left; return the number of images."""
    done = 0
    while batch := analyst.analyse_batch(lambda: False):
        done += batch
    return done


def colored(red: int, green: int, blue: int, seed: int = 0) -> bytes:
    """A noisy image with this mean colour, so with the embedding of that direction."""
    noise = np.random.default_rng(seed).integers(-20, 21, (24, 32, 1))
    return encoded(np.clip(np.array([red, green, blue]) + noise, 0, 255).astype(np.uint8))
