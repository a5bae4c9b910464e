"""In-memory copy of the valid keys, so that authentication does not query the database.

A thread reads them every `keys_poll_s` seconds. While the database is unreachable, the last known keys stay valid.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from datetime import datetime
from hmac import compare_digest

import structlog

from service.errors import KeyInvalid
from service.keys.api_key import configured_digests, digest_of, id_of
from service.keys.caller import Caller
from service.keys.key_store import KeyStore
from service.scopes import SCOPES
from service.settings import Settings
from service.storage.storage_faults import reason_of
from service.storage.tables import ApiKey, utc_now

log = structlog.stdlib.get_logger(__name__)

# `last_used_at` need not be exact.
RECORD_USE_EVERY_S = 10.0
STOP_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """All keys at one moment, replaced by a single assignment."""

    rows: dict[str, ApiKey] = field(default_factory=dict)
    configured: tuple[str, ...] = ()


class KeyRing:
    """Authenticates keys. `authenticate` only reads memory, so the event loop may call it."""

    def __init__(self, settings: Settings, store: KeyStore) -> None:
        self._settings = settings
        self._store = store
        self._snapshot = _Snapshot()
        self._last_read_failed = self._last_record_failed = False
        self._used: dict[str, datetime] = {}
        self._recorded: dict[str, datetime] = {}
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Read the keys and start the polling thread. Before this no key is valid. Raises KeyFileInvalid."""
        self.refresh()
        self._thread = threading.Thread(target=self._poll, name="keys", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread, which writes the pending times of use first."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(STOP_TIMEOUT_S)

    @property
    def any_known(self) -> bool:
        """Whether any key is configured or was ever created, including revoked ones."""
        return bool(self._snapshot.rows or self._snapshot.configured)

    def authenticate(self, text: str) -> Caller:
        """Return the holder of a key. Raises KeyInvalid if it is unknown, revoked or expired."""
        snapshot, digest = self._snapshot, digest_of(text)
        if any(compare_digest(configured, digest) for configured in snapshot.configured):
            return Caller("configured", "configured", frozenset(SCOPES), self._settings.rate_limit_per_minute)
        row = snapshot.rows.get(id_of(text) or "")
        if row is None or not compare_digest(row.digest, digest):
            raise KeyInvalid(
                "This key is unknown: check that it was copied completely. On the machine of the service, "
                "`maskloop keys show` prints the first one."
            )
        now = utc_now()
        if row.revoked_at is not None:
            raise KeyInvalid(f"The key {row.name!r} was revoked: ask the operator for a new one.")
        if row.expires_at is not None and row.expires_at <= now:
            raise KeyInvalid(
                f"The key {row.name!r} expired at {row.expires_at:%Y-%m-%d %H:%M} UTC: ask the operator for a new one."
            )
        self._used[row.id] = now
        default = self._settings.rate_limit_per_minute
        rate = default if row.rate_per_minute is None else row.rate_per_minute
        return Caller(row.id, row.name, frozenset(row.scopes), rate)

    def refresh(self) -> None:
        """Read the keys now."""
        rows = {row.id: row for row in self._store.list()}
        self._snapshot = _Snapshot(rows, configured_digests(self._settings))

    def _poll(self) -> None:
        record_at = time.monotonic() + RECORD_USE_EVERY_S
        while not self._stopping.wait(self._settings.keys_poll_s):
            try:
                self.refresh()
                self._last_read_failed = False
            except Exception as error:
                if not self._last_read_failed:
                    log.exception("cannot read the keys, the last known ones stay valid", error=repr(error))
                self._last_read_failed = True
            if time.monotonic() >= record_at:
                record_at = time.monotonic() + RECORD_USE_EVERY_S
                self._try_record_use()
        self._try_record_use()

    def _try_record_use(self) -> None:
        try:
            self._record_use()
            self._last_record_failed = False
        except Exception as error:
            if not self._last_record_failed:
                log.warning("cannot record when keys were last used", reason=reason_of(error))
            self._last_record_failed = True

    def _record_use(self) -> None:
        used = {key_id: at for key_id, at in self._used.copy().items() if self._recorded.get(key_id) != at}
        if used:
            self._store.record_use(used)
            self._recorded.update(used)
