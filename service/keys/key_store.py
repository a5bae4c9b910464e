"""Database table of the keys: create, list and revoke."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime

from sqlalchemy import or_, select, update
from sqlalchemy.exc import IntegrityError

from service.errors import BadInput, KeyNameTaken, KeyNotFound
from service.keys.api_key import generate_key
from service.scopes import SCOPES, Scope
from service.settings import Settings
from service.storage.database import Database
from service.storage.migrate import migrate
from service.storage.tables import ApiKey, utc_now

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


@contextmanager
def open_keys(settings: Settings) -> Iterator[KeyStore]:
    """Open the keys table alone; create the database if needed. Raises StorageFailed."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    database = Database(settings.resolved_database_url)
    try:
        migrate(database.engine, settings.data_dir / "migrate.lock")
        yield KeyStore(database)
    finally:
        database.close()


def is_valid(row: ApiKey) -> bool:
    """Whether a key is neither revoked nor expired."""
    return row.revoked_at is None and (row.expires_at is None or row.expires_at > utc_now())


class KeyStore:
    """All keys of one database, including revoked and expired ones."""

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
        """Create a key. Returns its row and its text, which cannot be retrieved later.

        `expires_at` None: never. `rate_per_minute` None: `MASKLOOP_RATE_LIMIT_PER_MINUTE`; 0: no limit.

        Raises BadInput for an invalid name or no scope, KeyNameTaken if a key that is not revoked has the name.
        """
        if not NAME.fullmatch(name):
            raise BadInput(
                f"{name!r} is not a valid key name: use at most 64 of letters, digits and . _ @ -; begin with a letter "
                "or digit."
            )
        if not scopes:
            raise BadInput("A key needs at least one scope.")
        new = generate_key()
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
                    f"A key named {name!r} exists: choose another name, so that both work until its users have "
                    f"switched, or revoke it first (`maskloop keys revoke {name}`)."
                )
            session.add(row)
        return row, new.text

    def create_first(self, name: str, save: Callable[[str], None]) -> str | None:
        """Create a key with every scope if the table is empty, even of revoked keys; return its text, otherwise None.

        `save` stores the text before the commit, so that no key exists whose text is lost.
        """
        new = generate_key()
        try:
            with self._database.write() as session:
                if session.scalar(select(ApiKey.id).limit(1)) is not None:
                    return None
                session.add(ApiKey(id=new.id, name=name, digest=new.digest, scopes=list(SCOPES)))
                session.flush()
                save(new.text)
        except IntegrityError:
            # PostgreSQL runs such transactions concurrently; the unique index lets one commit.
            return None
        return new.text

    def list(self) -> Sequence[ApiKey]:
        """Return all keys, oldest first."""
        with self._database.read() as session:
            return session.scalars(select(ApiKey).order_by(ApiKey.created_at, ApiKey.id)).all()

    def revoke(self, name_or_id: str) -> ApiKey:
        """Revoke a key by name or id; its row stays. Raises KeyNotFound if there is no valid one."""
        wanted = or_(ApiKey.name == name_or_id, ApiKey.id == name_or_id)
        with self._database.write() as session:
            # A name may equal another key's id; the name takes precedence.
            rows = session.scalars(select(ApiKey).where(wanted, ApiKey.revoked_at.is_(None))).all()
            if not rows:
                raise KeyNotFound(f"There is no valid key {name_or_id!r}: `maskloop keys list` lists all.")
            row = next((row for row in rows if row.name == name_or_id), rows[0])
            row.revoked_at = utc_now()
        return row

    def record_use(self, used: Mapping[str, datetime]) -> None:
        """Record when keys were last used, by id; times before the recorded ones are ignored."""
        with self._database.write() as session:
            for key_id, at in used.items():
                earlier = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < at)
                session.execute(update(ApiKey).where(ApiKey.id == key_id, earlier).values(last_used_at=at))
