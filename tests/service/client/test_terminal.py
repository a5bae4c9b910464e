"""What commands print for people."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from service.client.commands.terminal import print_failures, print_table

VERSION = "20260102T000000-good0000"


def test_version_is_whole_in_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.client.commands.terminal.PIPE_COLUMNS", 40)
    at = datetime(2026, 1, 2, tzinfo=UTC)
    print_table(
        ("VERSION", "NAME", "CREATED", "MIOU"), [(VERSION, "a long name of a model", at, 0.5), ("x", None, at, 0)]
    )
    shown = capsys.readouterr().out
    assert f"{VERSION} " in shown
    assert "…" not in shown


def test_equal_reasons_are_shown_once(capsys: pytest.CaptureFixture[str]) -> None:
    print_failures([*((f"{number}.jpg", "too large") for number in range(5)), ("a.jpg", "no image")])
    assert capsys.readouterr().err == (
        "5 failed: too large\n    0.jpg, 1.jpg, 2.jpg and 2 more\n1 failed: no image\n    a.jpg\n"
    )
