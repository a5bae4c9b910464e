"""The check before the port is opened, and the key that the first start creates."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service.addresses import http_url, is_loopback
from service.keys.api_key import read_local_key, write_local_key
from service.keys.first_start import PublicWithoutKey, check_exposure, create_first_key, print_first_key
from service.keys.key_ring import KeyRing
from service.keys.key_store import open_keys
from service.scopes import SCOPES
from service.settings import Settings
from tests.service.conftest import MakeSettings

EVERYWHERE = "0.0.0.0"  # noqa: S104 - compared, not bound


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    """Without a configured key."""
    return make_settings(api_key="")


def create(settings: Settings) -> str | None:
    """Do what one process does at its start."""
    with open_keys(settings) as store:
        ring = KeyRing(settings, store)
        ring.refresh()
        text = create_first_key(settings, ring, store)
        if text is not None:
            assert ring.authenticate(text).scopes == set(SCOPES)
        return text


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
def test_is_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_url_of_a_listening_address() -> None:
    assert http_url("127.0.0.1", 8000) == http_url(EVERYWHERE, 8000) == "http://127.0.0.1:8000"
    assert http_url("::", 8000) == "http://[::1]:8000"


def test_loopback_needs_no_key_and_the_check_creates_nothing(settings: Settings) -> None:
    check_exposure(settings)
    assert not settings.data_dir.exists()


def test_public_address_is_allowed_at_the_first_start(make_settings: MakeSettings) -> None:
    for host in (EVERYWHERE, "::", ""):
        check_exposure(make_settings(api_key="", host=host))


def test_public_address_is_refused_when_all_keys_are_revoked(make_settings: MakeSettings) -> None:
    public = make_settings(api_key="", host=EVERYWHERE)
    create(public)
    check_exposure(public)
    with open_keys(public) as keys:
        keys.revoke("first")
    with pytest.raises(PublicWithoutKey, match="maskloop keys create"):
        check_exposure(public)
    check_exposure(make_settings(api_key=""))


def test_configured_keys_and_anonymous_scopes_allow_a_public_address(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x" * 40)
    with open_keys(make_settings()) as keys:
        keys.create("camera", ["predict"])
        keys.revoke("camera")
    for allowed in ({"api_key": "x" * 40}, {"api_key_file": str(secret)}, {"anonymous_scopes": "predict"}):
        check_exposure(make_settings(**({"api_key": "", "host": EVERYWHERE} | allowed)))
    with open_keys(make_settings()) as keys:
        keys.create("camera", ["predict"])
    check_exposure(make_settings(api_key="", host=EVERYWHERE))


def test_json_logs_do_not_contain_the_key(make_settings: MakeSettings, capsys: pytest.CaptureFixture[str]) -> None:
    settings = make_settings(log_format="json", data_dir="my data")
    with capture_logs() as lines:
        print_first_key(settings, "maskloop_id_secret", "http://127.0.0.1:8000")
    assert [line["show"] for line in lines] == ["maskloop keys show --data-dir 'my data'"]
    assert "secret" not in f"{lines}{capsys.readouterr().err}"
    print_first_key(make_settings(), "maskloop_id_secret", "http://127.0.0.1:8000")
    assert "http://127.0.0.1:8000/?key=maskloop_id_secret" in capsys.readouterr().err


def test_first_start_creates_a_key_with_every_scope(settings: Settings) -> None:
    text = create(settings)
    assert text is not None
    assert read_local_key(settings.data_dir) == text
    assert stat.S_IMODE((settings.data_dir / "api-key").stat().st_mode) == 0o600
    with open_keys(settings) as keys:
        (row,) = keys.list()
    assert (row.name, row.scopes, row.expires_at) == ("first", list(SCOPES), None)


def test_later_starts_create_no_key_even_after_revocation(settings: Settings) -> None:
    first = create(settings)
    assert create(settings) is None
    with open_keys(settings) as keys:
        keys.revoke("first")
    assert create(settings) is None
    assert read_local_key(settings.data_dir) == first


def test_no_key_is_created_if_one_exists_or_is_configured(make_settings: MakeSettings, tmp_path: Path) -> None:
    assert create(make_settings(api_key="k" * 40)) is None
    secret = tmp_path / "secret"
    secret.write_text("x" * 40)
    assert create(make_settings(api_key="", api_key_file=str(secret))) is None
    with open_keys(make_settings()) as keys:
        keys.create("camera", ["predict"])
    assert create(make_settings(api_key="")) is None
    assert read_local_key(make_settings().data_dir) is None


def test_simultaneous_first_starts_create_one_key(settings: Settings) -> None:
    with open_keys(settings):
        pass
    together = threading.Barrier(8)
    created: list[str | None] = []

    def start() -> None:
        with open_keys(settings) as store:
            ring = KeyRing(settings, store)
            ring.refresh()
            together.wait()
            created.append(create_first_key(settings, ring, store))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (text,) = [each for each in created if each is not None]
    assert len(created) == 8
    assert read_local_key(settings.data_dir) == text
    with open_keys(settings) as keys:
        assert len(keys.list()) == 1


def test_key_is_not_created_if_its_file_cannot_be_written(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("service.keys.first_start.write_local_key", fail)
        with pytest.raises(OSError, match="disk full"):
            create(settings)
    assert create(settings) is not None


def test_file_is_replaced_atomically(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_local_key(tmp_path) is None
    write_local_key(tmp_path, "old")
    write_local_key(tmp_path, "new")
    assert read_local_key(tmp_path) == "new"

    def fail(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_local_key(tmp_path, "newer")
    assert read_local_key(tmp_path) == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["api-key"]
