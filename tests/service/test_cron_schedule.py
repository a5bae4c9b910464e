"""Cron schedules in time zones."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from service.cron_schedule import parse_schedule, parse_zone

NIGHTLY = "30 2 * * *"


@pytest.mark.parametrize(
    ("expression", "zone", "time", "expected"),
    [
        ("0 3 * * *", "UTC", "2026-01-31T10:00", "2026-02-01T03:00"),
        ("0 3 * * *", "UTC", "2026-01-31T03:00", "2026-02-01T03:00"),
        ("*/15 * * * *", "UTC", "2026-01-31T23:46", "2026-02-01T00:00"),
        ("0 0 * * 1", "Asia/Tokyo", "2026-01-31T10:00", "2026-02-01T15:00"),
        ("  0  0 1 * * ", "UTC", "2026-01-31T10:00", "2026-02-01T00:00"),
        # Summer time begins in Berlin: 2:30 does not exist and counts an hour later.
        (NIGHTLY, "Europe/Berlin", "2026-03-28T12:00", "2026-03-29T01:30"),
        (NIGHTLY, "Europe/Berlin", "2026-03-29T01:30", "2026-03-30T00:30"),
        (NIGHTLY, "Europe/Berlin", "2026-03-29T01:10", "2026-03-29T01:30"),
        ("*/20 * * * *", "Europe/Berlin", "2026-03-29T00:50", "2026-03-29T01:00"),
        ("0 2 * * *", "Australia/Lord_Howe", "2026-10-03T15:10", "2026-10-03T15:30"),
        # It ends: 2:30 exists twice and counts once.
        (NIGHTLY, "Europe/Berlin", "2026-10-24T12:00", "2026-10-25T00:30"),
        (NIGHTLY, "Europe/Berlin", "2026-10-25T00:30", "2026-10-26T01:30"),
        (NIGHTLY, "Europe/Berlin", "2026-10-25T01:10", "2026-10-26T01:30"),
        ("*/20 * * * *", "Europe/Berlin", "2026-10-25T01:34", "2026-10-25T02:00"),
    ],
)
def test_next_time_of_a_schedule(expression: str, zone: str, time: str, expected: str) -> None:
    start = datetime.fromisoformat(time).replace(tzinfo=UTC)
    assert f"{parse_schedule(expression, zone).next_after(start):%Y-%m-%dT%H:%M}" == expected


@pytest.mark.parametrize("expression", ["0 3 * *", "61 * * * *", "x", "0 0 31 2 *", "0 3 * * * *", "-1 * * * *"])
def test_invalid_expression_is_an_error_with_an_example(expression: str) -> None:
    with pytest.raises(ValueError, match=r"is not a cron expression .*`0 3 \* \* \*`"):
        parse_schedule(expression, "UTC")


@pytest.mark.parametrize("zone", ["", "Nowhere/City", "../etc/passwd", "/etc/localtime"])
def test_invalid_time_zone_is_an_error_with_an_example(zone: str) -> None:
    with pytest.raises(ValueError, match="Europe/Berlin"):
        parse_zone(zone)
