"""A service for clients, with the key that `api_key` returns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.api.middleware.conftest import serving
from tests.service.conftest import encoded, settings_maker
from tests.service.tiny_bundle import picture, write_bundle


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a service that asks for a key only where one is always needed."""
    folder = tmp_path_factory.mktemp("clients")
    with serving(settings_maker(folder, write_bundle(folder / "bundle"))()) as (host, port):
        yield f"http://{host}:{port}"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    file = tmp_path / "photo.png"
    file.write_bytes(encoded(picture()))
    return file
