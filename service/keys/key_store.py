"""The keys' rows: made, listed and revoked. A key itself is never in them, only its hash."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime

from sqlalchemy import or_, select, update
from sqlalchemy.exc import OperationalError

from service.errors import BadInput, KeyNameTaken, KeyNotFound, StorageFailed
from service.keys.api_key import make_key
from service.scopes import Scope
from service.settings import Settings
from service.storage.database import Database
from service.storage.migrate import migrate
from service.storage.tables import ApiKey, utc_now

# It stands in log lines and command lines.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


@contextmanager
def open_keys(settings: Settings) -> Iterator[KeyStore]:
    """The keys of a service, for a program that needs nothing else of it. The database is made where there is none.

    Raises:
        StorageFailed: The database does not answer.
    """
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    database = Database(settings.resolved_database_url)
    try:
        migrate(database.engine, settings.data_dir / "migrate.lock")
        yield KeyStore(database)
    except OperationalError as error:
        raise StorageFailed(f"The database does not answer: {error.orig}") from None
    finally:
        database.close()


class KeyStore:
    """All keys of one database, those that no longer open anything included."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self,
        name: str,
        scopes: Collection[Scope],
        *,
        expires_at: datetime | None = None,
        rate_per_minute: int | None = None,
    ) -> tuple[ApiKey, str]:
        """Make a key. Its text comes second: nobody can have it again.

        Args:
            name: For logs and for people; one valid key has it at a time.
            scopes: What it may do.
            expires_at: When it ends. None: never.
            rate_per_minute: Requests. None: what `MASKLOOP_RATE_LIMIT_PER_MINUTE` says; 0: any number.

        Raises:
            BadInput: The name cannot be one, or there is no scope.
            KeyNameTaken: Another key has the name and is not revoked.
        """
        if not NAME.fullmatch(name):
            raise BadInput(f"{name!r} cannot name a key: letters and digits, and . _ @ - between them; 64 at most.")
        if not scopes:
            raise BadInput("A key without a scope opens nothing: give it one.")
        new = make_key()
        row = ApiKey(
            id=new.id,
            name=name,
            digest=new.digest,
            scopes=list(scopes),
            expires_at=expires_at,
            rate_per_minute=rate_per_minute,
        )
        with self._database.write() as session:
            if session.scalar(select(ApiKey.id).where(ApiKey.name == name, ApiKey.revoked_at.is_(None))):
                raise KeyNameTaken(
                    f"There is a key {name!r} already: choose another name, so that both work while its users change "
                    f"over, or revoke that one first (`python -m service keys revoke {name}`)."
                )
            session.add(row)
        return row, new.text

    def list(self) -> Sequence[ApiKey]:
        """All keys, the oldest first."""
        with self._database.read() as session:
            return session.scalars(select(ApiKey).order_by(ApiKey.created_at, ApiKey.id)).all()

    def revoke(self, name_or_id: str) -> ApiKey:
        """End a key for good. Its row stays, so that it is known what it was.

        Raises:
            KeyNotFound: No key that is not revoked has this name or id.
        """
        wanted = or_(ApiKey.name == name_or_id, ApiKey.id == name_or_id)
        with self._database.write() as session:
            # A name may look like another key's id: the name comes first.
            rows = session.scalars(select(ApiKey).where(wanted, ApiKey.revoked_at.is_(None))).all()
            if not rows:
                raise KeyNotFound(f"No valid key is called {name_or_id!r}: `python -m service keys list` shows them.")
            row = next((row for row in rows if row.name == name_or_id), rows[0])
            row.revoked_at = utc_now()
        return row

    def note_use(self, used: Mapping[str, datetime]) -> None:
        """Write down when keys were last used, by their id; an earlier time than the one written changes nothing."""
        with self._database.write() as session:
            for key_id, at in used.items():
                earlier = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < at)
                session.execute(update(ApiKey).where(ApiKey.id == key_id, earlier).values(last_used_at=at))
