"""Settings from the environment, and names that are none."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service.settings import Settings, mistyped_variables
from service.state import open_state


def test_names_that_are_none_are_told_with_the_nearest_that_is_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = mistyped_variables()
    monkeypatch.setenv("MASKLOOP_MAX_IMAGE_BYTE", "1")
    monkeypatch.setenv("MASKLOOP_ZZZ", "1")
    monkeypatch.setenv("maskloop_port", "8001")
    monkeypatch.setenv("OTHER_VARIABLE", "1")
    found = {name: meant for name, meant in mistyped_variables().items() if name not in before}
    assert found == {"MASKLOOP_MAX_IMAGE_BYTE": "MASKLOOP_MAX_IMAGE_BYTES", "MASKLOOP_ZZZ": None}
    with capture_logs() as lines:
        open_state(Settings(data_dir=tmp_path / "data")).close()
    told = {line["variable"]: line["perhaps_meant"] for line in lines if "variable" in line}
    assert told["MASKLOOP_MAX_IMAGE_BYTE"] == "MASKLOOP_MAX_IMAGE_BYTES"


def test_the_environment_is_read_whatever_its_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("maskloop_port", "8001")
    assert Settings().port == 8001
