"""What the log says at the start of who may ask in a container."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from service.serve import _say_who_may_ask
from service.state import open_state
from tests.service.conftest import MakeSettings

OUTSIDE = "172.18.0.1"


@pytest.mark.parametrize(
    ("changes", "gateway", "level"),
    [
        ({"published_on": "127.0.0.1"}, {OUTSIDE}, "info"),
        ({"published_on": "127.0.0.1"}, set(), "warning"),
        ({"published_on": "127.0.0.1", "api_key": "k" * 40}, {OUTSIDE}, None),
        ({"published_on": "127.0.0.1", "anonymous_scopes": "predict"}, {OUTSIDE}, None),
        ({"published_on": "192.168.1.5", "anonymous_scopes": "all"}, {OUTSIDE}, None),
        ({}, {OUTSIDE}, None),
    ],
)
def test_in_a_container_it_says_whom_it_takes_for_its_own(
    make_settings: MakeSettings,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    gateway: set[str],
    level: str | None,
) -> None:
    monkeypatch.setattr("service.serve.gateways", lambda: frozenset(gateway))
    state = open_state(make_settings(**changes))
    try:
        state.keys.refresh()
        with capture_logs() as lines:
            _say_who_may_ask(state)
    finally:
        state.close()
    assert [line["log_level"] for line in lines] == ([level] if level else [])
    assert all(line.get("gateway", []) == sorted(gateway) for line in lines)
