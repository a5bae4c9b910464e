"""The keys table."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError

from service.errors import BadInput, KeyNameTaken, KeyNotFound
from service.keys.key_store import KeyStore
from service.settings import Settings
from service.storage.database import Database
from service.storage.tables import ApiKey, utc_now


def test_database_contains_no_secret(keys: KeyStore, settings: Settings) -> None:
    _, text = keys.create("camera", ["predict"])
    secret = text.rsplit("_", 1)[1].encode()
    files = [path for path in Path(settings.data_dir).rglob("*") if path.is_file()]
    assert any(b"camera" in path.read_bytes() for path in files)
    assert not any(secret in path.read_bytes() for path in files)


def test_name_is_unique_among_keys_that_are_not_revoked(keys: KeyStore) -> None:
    first, _ = keys.create("camera", ["predict"])
    with pytest.raises(KeyNameTaken, match="revoke camera"):
        keys.create("camera", ["predict"])
    keys.revoke("camera")
    second, _ = keys.create("camera", ["predict"])
    assert [row.id for row in keys.list()] == [first.id, second.id]
    assert keys.revoke(second.id).name == "camera"
    with pytest.raises(KeyNotFound, match="keys list"):
        keys.revoke("camera")


def test_index_prevents_two_keys_with_one_name(keys: KeyStore, settings: Settings) -> None:
    """Even if two processes checked the name at the same time."""
    keys.create("camera", ["predict"])
    database = Database(settings.resolved_database_url)
    with pytest.raises(IntegrityError), database.write() as session:
        session.add(ApiKey(id="other", name="camera", digest="0" * 64, scopes=[]))
    database.close()


def test_name_takes_precedence_over_id(keys: KeyStore) -> None:
    first, _ = keys.create("first", ["predict"])
    second, _ = keys.create(first.id, ["predict"])
    assert keys.revoke(first.id).id == second.id
    assert keys.revoke(first.id).id == first.id


@pytest.mark.parametrize("name", ["", " ", "a b", "-x", "a\nb", "é", "x" * 65, "a;b"])
def test_invalid_names_are_rejected(keys: KeyStore, name: str) -> None:
    with pytest.raises(BadInput, match="not a valid key name"):
        keys.create(name, ["predict"])


def test_key_needs_a_scope(keys: KeyStore) -> None:
    with pytest.raises(BadInput):
        keys.create("camera", [])


def test_latest_use_is_recorded(keys: KeyStore) -> None:
    row, _ = keys.create("camera", ["predict"])
    now = utc_now()
    for at in (now, now - timedelta(hours=1), now + timedelta(seconds=1), now):
        keys.record_use({row.id: at, "unknown": at})
    assert keys.list()[0].last_used_at == now + timedelta(seconds=1)


def test_first_key_of_a_concurrent_transaction_wins(keys: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """On PostgreSQL both transactions see an empty table; the unique index decides."""
    keys.create("first", ["predict"])
    monkeypatch.setattr("sqlalchemy.orm.Session.scalar", lambda *_, **__: None)
    saved: list[str] = []
    assert keys.create_first("first", saved.append) is None
    assert saved == []
