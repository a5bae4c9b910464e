"""What may be listened on without a key."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.keys.exposure import OpenToAll, check_exposure, is_loopback
from service.keys.key_store import open_keys
from tests.service.conftest import MakeSettings

EVERYWHERE = "0.0.0.0"  # noqa: S104 - compared, not bound


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("[::1]", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("LocalHost", True),
        (EVERYWHERE, False),
        ("::", False),
        ("", False),
        ("::ffff:192.168.1.5", False),
        ("192.168.1.5", False),
        ("localhost.example.com", False),
        ("my-machine", False),
    ],
)
def test_loopback_by_hand(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_without_a_key_it_stays_here(make_settings: MakeSettings, tmp_path: Path) -> None:
    check_exposure(make_settings())
    # Nothing was made to find that out.
    assert not (tmp_path / "data").exists()
    for open_to_all in ({"host": EVERYWHERE}, {"host": "::"}, {"published_on": "192.168.1.5"}):
        with pytest.raises(OpenToAll, match="python -m service keys create"):
            check_exposure(make_settings(**open_to_all))


def test_what_opens_it(make_settings: MakeSettings, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x" * 40)
    for opened in (
        {"api_key": "x" * 40},
        {"api_key_file": str(secret)},
        {"anonymous_scopes": "all"},
        {"anonymous_scopes": "predict"},
        {"published_on": "127.0.0.1"},
    ):
        check_exposure(make_settings(host=EVERYWHERE, **opened))
    with open_keys(make_settings()) as keys:
        keys.create("camera", ["predict"])
    check_exposure(make_settings(host=EVERYWHERE))
