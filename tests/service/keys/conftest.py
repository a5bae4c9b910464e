"""Fixtures: the keys table and a key ring on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from service.keys.key_ring import KeyRing
from service.keys.key_store import KeyStore, open_keys
from service.settings import Settings


@pytest.fixture
def keys(settings: Settings) -> Iterator[KeyStore]:
    with open_keys(settings) as opened:
        yield opened


@pytest.fixture
def ring(settings: Settings, keys: KeyStore) -> KeyRing:
    """Not started: tests call `refresh`."""
    return KeyRing(settings, keys)
