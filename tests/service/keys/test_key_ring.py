"""In-memory authentication: valid and invalid keys, and changes by other processes."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as checked
from hypothesis import strategies as st
from structlog.testing import capture_logs

from service.errors import KeyInvalid
from service.keys.api_key import KeyFileInvalid
from service.keys.key_ring import KeyRing
from service.keys.key_store import KeyStore
from service.scopes import SCOPES
from service.storage.tables import utc_now
from tests.service.conftest import MakeSettings, eventually

LONG = "a-key-of-somebody-else-0123456789"


def test_valid_key_gives_its_caller(keys: KeyStore, ring: KeyRing) -> None:
    row, text = keys.create("camera", ["predict", "contribute"], rate_per_minute=7)
    ring.refresh()
    caller = ring.authenticate(text)
    assert (caller.id, caller.name, caller.rate_per_minute) == (row.id, "camera", 7)
    assert caller.scopes == {"predict", "contribute"}


def test_default_rate_applies_to_keys_without_a_rate(make_settings: MakeSettings, keys: KeyStore) -> None:
    ring = KeyRing(make_settings(rate_limit_per_minute=5, api_key=LONG), keys)
    texts = [keys.create(f"k{rate}", ["predict"], rate_per_minute=rate)[1] for rate in (None, 0, 9)]
    ring.refresh()
    assert [ring.authenticate(text).rate_per_minute for text in [*texts, LONG]] == [5, 0, 9, 5]


def test_incomplete_or_changed_key_is_invalid(keys: KeyStore, ring: KeyRing) -> None:
    row, text = keys.create("camera", ["predict"])
    ring.refresh()
    for other in ("", "x", row.id, row.digest, text[:-1], text + "x", text.upper(), f"maskloop_{row.id}_", f" {text}"):
        with pytest.raises(KeyInvalid, match="unknown"):
            ring.authenticate(other)


@checked(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(max_codepoint=255)))
def test_arbitrary_text_is_invalid(ring: KeyRing, text: str) -> None:
    """Header values are decoded as latin-1."""
    with pytest.raises(KeyInvalid):
        ring.authenticate(text)


def test_revoked_and_expired_keys_are_invalid(keys: KeyStore, ring: KeyRing) -> None:
    _, revoked = keys.create("revoked", ["predict"])
    keys.revoke("revoked")
    _, ended = keys.create("ended", ["predict"], expires_at=utc_now() - timedelta(seconds=1))
    _, valid = keys.create("valid", ["predict"], expires_at=utc_now() + timedelta(hours=1))
    ring.refresh()
    with pytest.raises(KeyInvalid, match="was revoked"):
        ring.authenticate(revoked)
    with pytest.raises(KeyInvalid, match="expired at"):
        ring.authenticate(ended)
    assert ring.authenticate(valid).name == "valid"


def test_any_known_counts_revoked_and_configured_keys(make_settings: MakeSettings, keys: KeyStore) -> None:
    ring = KeyRing(make_settings(api_key=""), keys)
    ring.refresh()
    assert not ring.any_known
    keys.create("camera", ["predict"])
    keys.revoke("camera")
    ring.refresh()
    assert ring.any_known


def test_changes_by_another_process_apply(make_settings: MakeSettings, keys: KeyStore) -> None:
    ring = KeyRing(make_settings(keys_poll_s=0.02), keys)
    ring.start()
    try:
        _, text = keys.create("camera", ["predict"])
        eventually(lambda: is_valid(ring, text))
        keys.revoke("camera")
        eventually(lambda: not is_valid(ring, text))
    finally:
        ring.stop()
    # Recorded when the ring stops, at the latest.
    assert keys.list()[0].last_used_at is not None


def test_known_keys_stay_valid_while_the_database_is_unreachable(
    make_settings: MakeSettings, keys: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, text = keys.create("camera", ["predict"])
    ring = KeyRing(make_settings(keys_poll_s=0.02), keys)
    reads = 0

    def fail() -> None:
        nonlocal reads
        reads += 1
        raise OSError("no answer")

    with capture_logs() as lines:
        ring.start()
        try:
            with monkeypatch.context() as patch:
                patch.setattr(keys, "list", fail)
                eventually(lambda: reads >= 3)
                assert is_valid(ring, text)
            keys.revoke("camera")
            eventually(lambda: not is_valid(ring, text))
        finally:
            ring.stop()
    assert len([line for line in lines if "cannot read the keys" in line["event"]]) == 1


def is_valid(ring: KeyRing, text: str) -> bool:
    try:
        return bool(ring.authenticate(text))
    except KeyInvalid:
        return False


def test_configured_key_has_every_scope(make_settings: MakeSettings, keys: KeyStore) -> None:
    ring = KeyRing(make_settings(api_key=LONG), keys)
    ring.refresh()
    assert ring.any_known
    assert ring.authenticate(LONG).scopes == set(SCOPES)
    assert not is_valid(ring, LONG + "x")


def test_key_file_changes_apply_without_a_restart(make_settings: MakeSettings, keys: KeyStore, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    old, new = LONG + "-old", LONG + "-new"
    file.write_text(f"{old}\n")
    ring = KeyRing(make_settings(api_key_file=str(file)), keys)
    ring.refresh()
    assert (is_valid(ring, old), is_valid(ring, new)) == (True, False)
    file.write_text(f"{old}\n{new}\n")
    ring.refresh()
    assert (is_valid(ring, old), is_valid(ring, new)) == (True, True)
    file.write_text(new)
    ring.refresh()
    assert (is_valid(ring, old), is_valid(ring, new)) == (False, True)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_key_file_may_begin_with_a_byte_order_mark(
    make_settings: MakeSettings, keys: KeyStore, tmp_path: Path, end: str
) -> None:
    """Editors on Windows write one."""
    file = tmp_path / "secret"
    file.write_bytes(f"\ufeff{LONG}-first{end}{LONG}-second{end}".encode())
    ring = KeyRing(make_settings(api_key_file=str(file)), keys)
    ring.refresh()
    assert (is_valid(ring, f"{LONG}-first"), is_valid(ring, f"{LONG}-second")) == (True, True)


@pytest.mark.parametrize("content", [None, b"", b"  \n", b"short", LONG.encode() + b"\nshort\n", b"\xff\xfe" * 20])
def test_invalid_key_file_prevents_the_start(
    make_settings: MakeSettings, keys: KeyStore, tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(KeyFileInvalid, match="MASKLOOP_API_KEY_FILE") as caught:
        KeyRing(make_settings(api_key_file=str(file)), keys).start()
    assert LONG not in str(caught.value)


@pytest.mark.parametrize("key", ["short", "two words that are long enough together"])
def test_configured_key_must_be_long_and_is_not_in_the_error(make_settings: MakeSettings, key: str) -> None:
    with pytest.raises(ValueError, match="20 characters") as caught:
        make_settings(api_key=key)
    assert caught.value.errors()[0]["msg"].count(key) == 0  # type: ignore[attr-defined]


def test_repr_of_settings_hides_the_key(make_settings: MakeSettings) -> None:
    assert LONG not in repr(make_settings(api_key=LONG))
