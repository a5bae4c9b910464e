"""The command line of `keys`. What it does is in `command.py`, imported when it is done."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from service.scopes import SCOPES, Scope, parse_scopes

if TYPE_CHECKING:
    from service.settings import Settings

# A century: beyond it nobody means what they say, and calendars end.
LONGEST_DAYS = 36_500
HIGHEST_RATE = 1_000_000


def add_keys(keys: argparse.ArgumentParser) -> None:
    """Make, list and revoke."""
    commands = keys.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser(
        "create",
        help="make a key and show it, this once",
        description="Make a key. It goes to stdout, all else to stderr: KEY=$(python -m service keys create camera "
        "--scope predict). Scopes: predict (segment), contribute (images and masks into the pool), train (runs; with "
        "contribute, the pool's list), admin (models); none includes another.",
    )
    command.add_argument("name", metavar="NAME", help="for logs and for people, such as camera-7")
    command.add_argument(
        "--scope", type=_scopes, required=True, metavar="SCOPE,...", help=f"some of {','.join(SCOPES)}, or all"
    )
    command.add_argument(
        "--rate-per-minute", type=_whole, metavar="N", help="requests that it may send; 0: any (default: the setting's)"
    )
    command.add_argument("--expires-days", type=_days, metavar="N", help="when it ends (default: never)")
    add_data_dir(command)
    command.set_defaults(command=_create)

    command = commands.add_parser("list", help="show all keys, without their secrets")
    command.add_argument("--json", action="store_true", help="for programs")
    add_data_dir(command)
    command.set_defaults(command=_list)

    command = commands.add_parser("revoke", help="end keys for good")
    command.add_argument("names", nargs="+", metavar="NAME", help="a key's name or id")
    add_data_dir(command)
    command.set_defaults(command=_revoke)


def add_data_dir(command: argparse.ArgumentParser) -> None:
    """Where everything is kept, which every command has to know."""
    command.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="where everything is kept (default: ./maskloop-data)"
    )


def _settings(options: argparse.Namespace) -> Settings:
    from service.settings import Settings  # noqa: PLC0415

    return Settings() if options.data_dir is None else Settings(data_dir=options.data_dir)


def _create(options: argparse.Namespace) -> int:
    from service.keys.key_commands import create  # noqa: PLC0415

    limits = {"rate_per_minute": options.rate_per_minute, "expires_days": options.expires_days}
    return create(_settings(options), options.name, options.scope, **limits)


def _list(options: argparse.Namespace) -> int:
    from service.keys.key_commands import show  # noqa: PLC0415

    return show(_settings(options), as_json=options.json)


def _revoke(options: argparse.Namespace) -> int:
    from service.keys.key_commands import revoke  # noqa: PLC0415

    return revoke(_settings(options), options.names)


def _scopes(text: str) -> tuple[Scope, ...]:
    try:
        scopes = parse_scopes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not scopes:
        raise argparse.ArgumentTypeError(f"name some of {','.join(SCOPES)}, or all")
    return scopes


def _whole(text: str) -> int:
    if not text.isdecimal() or int(text) > HIGHEST_RATE:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of requests, at most {HIGHEST_RATE}")
    return int(text)


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = 0.0
    if not 0 < days <= LONGEST_DAYS:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of days from now, at most {LONGEST_DAYS}")
    return days
