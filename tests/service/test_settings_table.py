"""The settings page and listing, generated from service/settings.py."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from service.__main__ import main
from service.server_settings import ServerSettings
from service.settings import Settings
from service.settings_table import listing, markdown, rows

SOURCES = [Path(inspect.getfile(part)) for part in (ServerSettings, Settings)]
PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_committed_page_equals_the_generated_one() -> None:
    assert PAGE.read_text(encoding="utf-8") == markdown(), "run `make docs`"


def test_every_setting_has_a_row() -> None:
    assert [row.name for row in rows()] == [f"MASKLOOP_{name.upper()}" for name in Settings.model_fields]
    assert all(row.type for row in rows())


def test_descriptions_are_those_below_the_fields() -> None:
    source = "".join(file.read_text(encoding="utf-8") for file in SOURCES)
    for row in rows():
        field = row.name.removeprefix("MASKLOOP_").lower()
        below = source[source.index(f"    {field}: ") :]
        assert 0 <= re.sub(r"\s+", " ", below).find(row.description) < 400, row.name
    assert all(row.description for row in rows() if row.name in ("MASKLOOP_DATA_DIR", "MASKLOOP_MAX_BATCH"))


def test_command_prints_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "--markdown"]) == 0
    assert capsys.readouterr().out == markdown()


def test_listing_shows_present_values_and_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKLOOP_PORT", "9000")
    lines = listing(Settings()).splitlines()
    assert "MASKLOOP_PORT=9000    (default: 8000)" in lines
    assert "MASKLOOP_MAX_BATCH=8" in lines


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("api_key", "correct-horse-battery-staple", "correct-horse-battery-staple"),
        ("database_url", "postgresql://me:s3cr@t/p@db/maskloop", "s3cr@t/p"),
        ("database_url", "postgresql://db/maskloop?user=me&password=s3cret&sslmode=require", "s3cret"),
        ("broker_url", "redis://:s3cret@broker:6379/0", "s3cret"),
    ],
)
def test_listing_hides_secrets(name: str, value: str, secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"MASKLOOP_{name.upper()}", value)
    text = listing(Settings())
    assert secret not in text
    assert "***" in text
