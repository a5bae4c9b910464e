"""`python -m service keys create | list | revoke`: keys by hand. Running services follow within a second."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta

from service.errors import KeyNotFound
from service.keys.key_store import open_keys
from service.scopes import Scope
from service.settings import Settings
from service.storage.tables import ApiKey, utc_now

COLUMNS = ("NAME", "ID", "SCOPES", "A MINUTE", "MADE", "LAST USED", "ENDS", "STATE")
EMPTY = "There is no key yet: `python -m service keys create NAME --scope predict` makes one."


def create(
    settings: Settings, name: str, scopes: Sequence[Scope], *, rate_per_minute: int | None, expires_days: float | None
) -> int:
    """Make a key. It alone goes to stdout, for `KEY=$(...)`; what there is to know about it goes to stderr."""
    expires_at = None if expires_days is None else utc_now() + timedelta(days=expires_days)
    with open_keys(settings) as keys:
        row, text = keys.create(name, scopes, expires_at=expires_at, rate_per_minute=rate_per_minute)
    first = len(_listed(settings)) == 1
    _tell(f"key {row.name} ({row.id}) in {_where(settings)}: {', '.join(row.scopes)}; {_limits(row)}")
    _tell("It is shown this once. Send it as `Authorization: Bearer KEY`. Running services know it within a second.")
    if first:
        _tell("It is the first one: from now on every call needs a key, from this machine too.")
    sys.stdout.write(f"{text}\n")
    return 0


def show(settings: Settings, *, as_json: bool) -> int:
    """List all keys, those that have ended too."""
    rows = _listed(settings)
    if as_json:
        sys.stdout.write(json.dumps([_entry(row) for row in rows], indent=2) + "\n")
        return 0
    if not rows:
        _tell(EMPTY)
        return 0
    table = [COLUMNS, *(_line(row) for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(COLUMNS))]
    for line in table:
        sys.stdout.write("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n")
    return 0


def revoke(settings: Settings, names: Sequence[str]) -> int:
    """End keys by name or id."""
    if not _exists(settings):
        raise KeyNotFound(f"{_where(settings)} holds no keys: is it the --data-dir of the service?")
    for name in names:
        with open_keys(settings) as keys:
            row = keys.revoke(name)
        _tell(f"key {row.name} ({row.id}) is revoked: running services refuse it within a second")
    return 0


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _listed(settings: Settings) -> Sequence[ApiKey]:
    if not _exists(settings):
        return []
    with open_keys(settings) as keys:
        return keys.list()


def _exists(settings: Settings) -> bool:
    """Asking makes no folder and no database."""
    return bool(settings.database_url) or (settings.data_dir / "maskloop.db").exists()


def _where(settings: Settings) -> str:
    return "the database of MASKLOOP_DATABASE_URL" if settings.database_url else str(settings.data_dir)


def _limits(row: ApiKey) -> str:
    ends = f"ends at {row.expires_at:%Y-%m-%d %H:%M} UTC" if row.expires_at else "does not end"
    return f"{_rate(row)} requests a minute; {ends}"


def _rate(row: ApiKey) -> str:
    if row.rate_per_minute is None:
        return "default"
    return str(row.rate_per_minute) if row.rate_per_minute else "any"


def _state(row: ApiKey) -> str:
    if row.revoked_at is not None:
        return "revoked"
    return "ended" if row.expires_at is not None and row.expires_at <= utc_now() else "valid"


def _line(row: ApiKey) -> tuple[str, ...]:
    times = (_time(at) for at in (row.created_at, row.last_used_at, row.expires_at))
    return (row.name, row.id, ",".join(row.scopes), _rate(row), *times, _state(row))


def _time(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M}" if at else "-"


def _entry(row: ApiKey) -> dict[str, object]:
    times = {name: getattr(row, name) for name in ("created_at", "expires_at", "revoked_at", "last_used_at")}
    return {
        "name": row.name,
        "id": row.id,
        "scopes": row.scopes,
        "rate_per_minute": row.rate_per_minute,
        **{name: at and at.isoformat() for name, at in times.items()},
        "state": _state(row),
    }
