"""The keys in memory: who is let in, and how soon a change elsewhere is followed."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as checked
from hypothesis import strategies as st
from structlog.testing import capture_logs

from service.errors import KeyInvalid
from service.keys.configured_keys import KeyUnusable
from service.keys.key_ring import KeyRing
from service.keys.key_store import KeyStore
from service.scopes import SCOPES
from service.storage.tables import utc_now
from tests.service.conftest import MakeSettings, eventually

LONG = "a-key-of-somebody-else-0123456789"


def test_who_has_a_key(keys: KeyStore, ring: KeyRing) -> None:
    row, text = keys.create("camera", ["predict", "contribute"], rate_per_minute=7)
    ring.refresh()
    caller = ring.caller(text)
    assert (caller.id, caller.name, caller.rate_per_minute) == (row.id, "camera", 7)
    assert caller.scopes == {"predict", "contribute"}


def test_the_settings_give_the_rate_that_a_key_has_not(make_settings: MakeSettings, keys: KeyStore) -> None:
    ring = KeyRing(make_settings(rate_limit_per_minute=5, api_key=LONG), keys)
    texts = [keys.create(f"k{rate}", ["predict"], rate_per_minute=rate)[1] for rate in (None, 0, 9)]
    ring.refresh()
    assert [ring.caller(text).rate_per_minute for text in [*texts, LONG]] == [5, 0, 9, 5]


def test_what_is_no_key_opens_nothing(keys: KeyStore, ring: KeyRing) -> None:
    row, text = keys.create("camera", ["predict"])
    ring.refresh()
    for other in ("", "x", row.id, row.digest, text[:-1], text + "x", text.upper(), f"maskloop_{row.id}_", f" {text}"):
        with pytest.raises(KeyInvalid, match="not known"):
            ring.caller(other)


@checked(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(max_codepoint=255)))
def test_no_text_opens_anything(ring: KeyRing, text: str) -> None:
    """Header values are latin-1, whatever their bytes mean."""
    with pytest.raises(KeyInvalid):
        ring.caller(text)


def test_keys_end(keys: KeyStore, ring: KeyRing) -> None:
    _, revoked = keys.create("revoked", ["predict"])
    keys.revoke("revoked")
    _, ended = keys.create("ended", ["predict"], expires_at=utc_now() - timedelta(seconds=1))
    _, valid = keys.create("valid", ["predict"], expires_at=utc_now() + timedelta(hours=1))
    ring.refresh()
    with pytest.raises(KeyInvalid, match="was revoked"):
        ring.caller(revoked)
    with pytest.raises(KeyInvalid, match="ended at"):
        ring.caller(ended)
    assert ring.caller(valid).name == "valid"


def test_a_key_once_made_closes_the_door_for_good(keys: KeyStore, ring: KeyRing) -> None:
    needed = {"before anything is read": ring.needed}
    ring.refresh()
    needed["without keys"] = ring.needed
    keys.create("camera", ["predict"])
    ring.refresh()
    needed["with one"] = ring.needed
    keys.revoke("camera")
    ring.refresh()
    needed["after its end"] = ring.needed
    assert needed == {"before anything is read": True, "without keys": False, "with one": True, "after its end": True}


def test_another_process_makes_and_revokes(make_settings: MakeSettings, keys: KeyStore) -> None:
    ring = KeyRing(make_settings(keys_poll_s=0.02), keys)
    ring.start()
    try:
        _, text = keys.create("camera", ["predict"])
        eventually(lambda: opens(ring, text))
        keys.revoke("camera")
        eventually(lambda: not opens(ring, text))
    finally:
        ring.stop()
    # Written at the end, if not before.
    assert keys.list()[0].last_used_at is not None


def test_while_the_database_is_away_the_known_keys_stay(
    make_settings: MakeSettings, keys: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, text = keys.create("camera", ["predict"])
    ring = KeyRing(make_settings(keys_poll_s=0.02), keys)
    looks = 0

    def away() -> None:
        nonlocal looks
        looks += 1
        raise OSError("no answer")

    with capture_logs() as lines:
        ring.start()
        try:
            with monkeypatch.context() as patch:
                patch.setattr(keys, "list", away)
                eventually(lambda: looks >= 3)
                assert opens(ring, text)
            keys.revoke("camera")
            eventually(lambda: not opens(ring, text))
        finally:
            ring.stop()
    assert len([line for line in lines if "cannot read the keys" in line["event"]]) == 1


def opens(ring: KeyRing, text: str) -> bool:
    try:
        return bool(ring.caller(text))
    except KeyInvalid:
        return False


def test_a_key_of_the_settings(make_settings: MakeSettings, keys: KeyStore) -> None:
    ring = KeyRing(make_settings(api_key=LONG), keys)
    ring.refresh()
    assert ring.needed
    assert ring.caller(LONG).scopes == set(SCOPES)
    assert not opens(ring, LONG + "x")


def test_keys_of_a_file_are_changed_without_a_restart(
    make_settings: MakeSettings, keys: KeyStore, tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    old, new = LONG + "-old", LONG + "-new"
    file.write_text(f"{old}\n")
    ring = KeyRing(make_settings(api_key_file=str(file)), keys)
    ring.refresh()
    assert (opens(ring, old), opens(ring, new)) == (True, False)
    file.write_text(f"{old}\n{new}\n")
    ring.refresh()
    assert (opens(ring, old), opens(ring, new)) == (True, True)
    file.write_text(new)
    ring.refresh()
    assert (opens(ring, old), opens(ring, new)) == (False, True)


@pytest.mark.parametrize("content", [None, b"", b"  \n", b"short", LONG.encode() + b"\nshort\n", b"\xff\xfe" * 20])
def test_a_file_without_a_key_lets_nothing_begin(
    make_settings: MakeSettings, keys: KeyStore, tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(KeyUnusable, match="MASKLOOP_API_KEY_FILE") as caught:
        KeyRing(make_settings(api_key_file=str(file)), keys).start()
    assert LONG not in str(caught.value)


@pytest.mark.parametrize("key", ["short", "two words that are long enough together"])
def test_a_key_of_the_settings_is_long_and_is_not_told(make_settings: MakeSettings, key: str) -> None:
    with pytest.raises(ValueError, match="20 characters") as caught:
        make_settings(api_key=key)
    assert caught.value.errors()[0]["msg"].count(key) == 0  # type: ignore[attr-defined]


def test_settings_show_no_key(make_settings: MakeSettings) -> None:
    assert LONG not in repr(make_settings(api_key=LONG))
