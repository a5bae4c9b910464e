"""`maskloop keys create | list | revoke | show`: manage keys.

Slow imports are inside the functions: every command of the program builds these parsers.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from service.scopes import SCOPES, Scope, parse_scopes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from service.settings import Settings
    from service.storage.tables import ApiKey

MAX_DAYS = 36_500
MAX_RATE = 1_000_000
COLUMNS = ("NAME", "ID", "SCOPES", "PER MINUTE", "CREATED", "LAST USED", "EXPIRES", "STATE")
CREATE = "`maskloop keys create NAME --scope all`"


def add_keys(keys: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    commands = keys.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser(
        "create",
        help="create a key and print it once",
        description="Create a key. Only the key goes to stdout: KEY=$(%(prog)s camera --scope "
        "predict). Scopes: predict (segment), contribute (images and masks into the pool), train (runs; with "
        "contribute, the pool's list), admin (models). No scope includes another.",
    )
    command.add_argument("name", metavar="NAME", help="name for logs and people, such as camera-7")
    command.add_argument(
        "--scope", type=_scopes, required=True, metavar="SCOPE,...", help=f"some of {','.join(SCOPES)}, or all"
    )
    command.add_argument(
        "--rate-per-minute",
        type=_rate,
        metavar="N",
        help="maximum requests per minute; 0: no limit (default: MASKLOOP_RATE_LIMIT_PER_MINUTE)",
    )
    command.add_argument("--expires-days", type=_days, metavar="N", help="days until the key expires (default: never)")
    add_data_dir(command)
    command.set_defaults(command=_create)

    command = commands.add_parser("list", help="list all keys, without their secrets")
    command.add_argument("--json", action="store_true", help="print JSON")
    add_data_dir(command)
    command.set_defaults(command=_list)

    command = commands.add_parser("revoke", help="revoke keys for good")
    command.add_argument("names", nargs="+", metavar="NAME", help="name or id of a key")
    add_data_dir(command)
    command.set_defaults(command=_revoke)

    command = commands.add_parser("show", help="print the key that the first start created")
    add_data_dir(command)
    command.set_defaults(command=_show)


def add_data_dir(command: argparse.ArgumentParser) -> None:
    """Add the option `--data-dir`."""
    command.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="folder of the database, images, models (default: ./maskloop-data)"
    )


def _create(options: argparse.Namespace) -> int:
    from service.keys.key_store import open_keys  # noqa: PLC0415
    from service.storage.tables import utc_now  # noqa: PLC0415

    settings = _settings(options)
    expires_at = None if options.expires_days is None else utc_now() + timedelta(days=options.expires_days)
    with open_keys(settings) as keys:
        row, text = keys.create(
            options.name, options.scope, expires_at=expires_at, rate_per_minute=options.rate_per_minute
        )
    expiry = f"expires at {row.expires_at:%Y-%m-%d %H:%M} UTC" if row.expires_at else "does not expire"
    _note(f"Created key {row.name} ({row.id}) in {_place(settings)}.")
    _note(f"Scopes: {', '.join(row.scopes)}; requests per minute: {_rate_text(row)}; {expiry}.")
    _note("The key is shown once. Send it as `Authorization: Bearer KEY`. Running services accept it within a second.")
    sys.stdout.write(f"{text}\n")
    return 0


def _list(options: argparse.Namespace) -> int:
    settings = _settings(options)
    rows = _rows(settings)
    if options.json:
        sys.stdout.write(json.dumps([_json_entry(row) for row in rows], indent=2) + "\n")
        return 0
    if not rows:
        _note(f"{_place(settings)} contains no keys. The first start of the service creates one; so does {CREATE}.")
        return 0
    table = [COLUMNS, *(_cells(row) for row in rows)]
    widths = [max(len(cells[column]) for cells in table) for column in range(len(COLUMNS))]
    for cells in table:
        line = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        sys.stdout.write(f"{line.rstrip()}\n")
    return 0


def _revoke(options: argparse.Namespace) -> int:
    from service.errors import KeyNotFound  # noqa: PLC0415
    from service.keys.key_store import open_keys  # noqa: PLC0415

    settings = _settings(options)
    if not _rows(settings):
        raise KeyNotFound(f"{_place(settings)} contains no keys: pass the --data-dir of the service.")
    for name in options.names:
        with open_keys(settings) as keys:
            row = keys.revoke(name)
        _note(f"Revoked key {row.name} ({row.id}). Running services reject it within a second.")
    return 0


def _show(options: argparse.Namespace) -> int:
    from service.errors import KeyNotFound  # noqa: PLC0415
    from service.keys.api_key import KEY_FILE, id_of, read_local_key  # noqa: PLC0415
    from service.keys.key_store import is_valid  # noqa: PLC0415

    settings = _settings(options)
    file = settings.data_dir / KEY_FILE
    text = settings.api_key.get_secret_value() or read_local_key(settings.data_dir)
    if text is None:
        raise KeyNotFound(
            f"{file} does not exist. The first start of `maskloop up` or `serve` creates it, unless a key "
            f"exists or is configured. Pass the --data-dir of the service, or create a key with {CREATE}."
        )
    if not settings.api_key and not any(row.id == id_of(text) and is_valid(row) for row in _rows(settings)):
        raise KeyNotFound(
            f"The key in {file} was revoked, has expired or belongs to another database: create one with {CREATE}."
        )
    sys.stdout.write(f"{text}\n")
    return 0


def _settings(options: argparse.Namespace) -> Settings:
    from service.settings import Settings  # noqa: PLC0415

    return Settings() if options.data_dir is None else Settings(data_dir=options.data_dir)


def _rows(settings: Settings) -> Sequence[ApiKey]:
    from service.keys.key_store import open_keys  # noqa: PLC0415

    # Reading must not create a folder and a database.
    if not settings.has_database:
        return []
    with open_keys(settings) as keys:
        return keys.list()


def _note(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _place(settings: Settings) -> str:
    return "the database of MASKLOOP_DATABASE_URL" if settings.database_url else str(settings.data_dir)


def _rate_text(row: ApiKey) -> str:
    if row.rate_per_minute is None:
        return "default"
    return str(row.rate_per_minute) if row.rate_per_minute else "unlimited"


def _state(row: ApiKey) -> str:
    from service.keys.key_store import is_valid  # noqa: PLC0415

    return "revoked" if row.revoked_at is not None else "valid" if is_valid(row) else "expired"


def _cells(row: ApiKey) -> tuple[str, ...]:
    times = (_time(at) for at in (row.created_at, row.last_used_at, row.expires_at))
    return (row.name, row.id, ",".join(row.scopes), _rate_text(row), *times, _state(row))


def _time(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M}" if at else "-"


def _json_entry(row: ApiKey) -> dict[str, object]:
    times = {name: getattr(row, name) for name in ("created_at", "expires_at", "revoked_at", "last_used_at")}
    return {
        "name": row.name,
        "id": row.id,
        "scopes": row.scopes,
        "rate_per_minute": row.rate_per_minute,
        **{name: at and at.isoformat() for name, at in times.items()},
        "state": _state(row),
    }


def _scopes(text: str) -> tuple[Scope, ...]:
    try:
        scopes = parse_scopes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not scopes:
        raise argparse.ArgumentTypeError(f"choose some of {','.join(SCOPES)}, or all")
    return scopes


def _rate(text: str) -> int:
    if not text.isdecimal() or int(text) > MAX_RATE:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {MAX_RATE}")
    return int(text)


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = 0.0
    if not 0 < days <= MAX_DAYS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days above 0 and at most {MAX_DAYS}")
    return days
