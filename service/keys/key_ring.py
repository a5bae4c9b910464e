"""The keys that this process knows, in memory: asking costs a request no look into the database.

A thread reads them anew every second, so a key that was made or revoked elsewhere is followed without a restart. Where
the database is away, those that were known go on being so.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from datetime import datetime
from hmac import compare_digest

import structlog

from service.errors import KeyInvalid
from service.keys.api_key import digest_of, id_of
from service.keys.caller import Caller
from service.keys.configured_keys import configured_digests
from service.keys.key_store import KeyStore
from service.scopes import SCOPES
from service.settings import Settings
from service.storage.tables import ApiKey, utc_now

log = structlog.stdlib.get_logger(__name__)

# When a key was last used is for people: it need not be known to the second.
NOTE_USE_EVERY_S = 10.0
STOP_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class _Known:
    """Replaced as a whole, by one assignment."""

    rows: dict[str, ApiKey] = field(default_factory=dict)
    configured: tuple[str, ...] = ()


class KeyRing:
    """The valid keys. `caller` may be asked from the event loop: it touches memory alone."""

    def __init__(self, settings: Settings, store: KeyStore) -> None:
        self._settings = settings
        self._store = store
        self._known: _Known | None = None
        self._away = False
        self._used: dict[str, datetime] = {}
        self._noted: dict[str, datetime] = {}
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Read the keys, and follow them from now on. Nobody is let in before.

        Raises:
            KeyUnusable: The file of `MASKLOOP_API_KEY_FILE` holds none.
        """
        self.refresh()
        self._thread = threading.Thread(target=self._follow, name="keys", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; what it still has to write is written first."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join(STOP_TIMEOUT_S)

    @property
    def needed(self) -> bool:
        """Whether a key was ever made: then nobody is let in without one, even when all have ended since."""
        known = self._known
        # Not read yet: as if there were one.
        return known is None or bool(known.rows or known.configured)

    def caller(self, text: str) -> Caller:
        """Who has this key.

        Raises:
            KeyInvalid: It is none of ours, revoked, or past its end.
        """
        known, digest = self._known or _Known(), digest_of(text)
        if any(compare_digest(one, digest) for one in known.configured):
            return Caller("configured", "configured", frozenset(SCOPES), self._settings.rate_limit_per_minute)
        row = known.rows.get(id_of(text) or "")
        if row is None or not compare_digest(row.digest, digest):
            raise KeyInvalid("This key is not known here: look whether all of it was copied.")
        now = utc_now()
        if row.revoked_at is not None:
            raise KeyInvalid(f"The key {row.name!r} was revoked: ask for a new one.")
        if row.expires_at is not None and row.expires_at <= now:
            raise KeyInvalid(f"The key {row.name!r} ended at {row.expires_at:%Y-%m-%d %H:%M} UTC: ask for a new one.")
        self._used[row.id] = now
        default = self._settings.rate_limit_per_minute
        rate = default if row.rate_per_minute is None else row.rate_per_minute
        return Caller(row.id, row.name, frozenset(row.scopes), rate)

    def refresh(self) -> None:
        """Read the keys now."""
        self._known = _Known(
            rows={row.id: row for row in self._store.list()},
            configured=configured_digests(self._settings),
        )

    def _follow(self) -> None:
        note_at = time.monotonic() + NOTE_USE_EVERY_S
        while not self._ending.wait(self._settings.keys_poll_s):
            try:
                self.refresh()
                if time.monotonic() >= note_at:
                    note_at = time.monotonic() + NOTE_USE_EVERY_S
                    self._note_use()
                self._away = False
            except Exception as error:
                # Once, not every second; whoever was let in until now still is.
                if not self._away:
                    log.exception("cannot read the keys, those known before stay", error=repr(error))
                self._away = True
        try:
            self._note_use()
        except Exception as error:
            log.warning("when keys were last used is not written down", error=repr(error))

    def _note_use(self) -> None:
        used = {key_id: at for key_id, at in self._used.copy().items() if self._noted.get(key_id) != at}
        if used:
            self._store.note_use(used)
            self._noted.update(used)
