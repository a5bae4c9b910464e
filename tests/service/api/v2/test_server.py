"""Metadata of the server."""

from __future__ import annotations

import importlib.metadata

import pytest
from fastapi.testclient import TestClient


def test_version_is_that_of_the_package_and_read_once(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = importlib.metadata.version("maskloop")

    def read(_name: str) -> None:
        raise AssertionError("a request reads the package metadata from disk")

    monkeypatch.setattr(importlib.metadata, "distribution", read)
    assert client.get("/v2").json()["version"] == installed
    assert client.get("/openapi.json").json()["info"]["version"] == installed
