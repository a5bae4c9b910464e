"""What the server says of itself."""

from __future__ import annotations

import importlib.metadata

import pytest
from fastapi.testclient import TestClient


def test_its_version_is_the_packages_and_read_once(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = importlib.metadata.version("maskloop")

    def read(_name: str) -> None:
        raise AssertionError("the disk is looked at for a request")

    monkeypatch.setattr(importlib.metadata, "distribution", read)
    assert client.get("/v2").json()["version"] == installed
    assert client.get("/openapi.json").json()["info"]["version"] == installed
