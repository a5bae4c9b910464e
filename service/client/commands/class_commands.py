"""`maskloop classes show | set`: the class list of the service."""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.client.commands.connection import add_connected
from service.client.commands.exit_codes import DONE
from service.client.commands.terminal import note, print_json, print_table, say
from service.client.wrong_usage import WrongUsage

if TYPE_CHECKING:
    from service.client.answers import ServiceClasses
    from service.client.sync_client import Client

# There is no list before the first model or the first `set`.
NO_LIST = ("no-model", "classes-not-found")


def add_classes(commands: Any) -> None:
    """Add the subcommands."""
    classes = commands.add_parser(
        "classes", help="show and change the class list", description="The class list of a service: ids of labels."
    )
    subcommands = classes.add_subparsers(required=True, metavar="COMMAND")
    add_connected(subcommands, "show", "show the class list, with the labels of each class", _show)

    command = add_connected(subcommands, "set", "make the classes of a file those of the service", _set)
    command.add_argument("file", type=Path, metavar="CLASSES.toml", help="a data set's classes.toml")
    command.add_argument("--rename", action="append", type=_pair, metavar="OLD=NEW", help="a class has another name")
    command.add_argument("--merge", action="append", type=_pair, metavar="OLD=NEW", help="a class is part of another")
    command.add_argument("--retire", action="append", metavar="OLD", help="pixels of a class are ignored")
    others = "retire every class that the file lacks and that no other option names"
    command.add_argument("--retire-others", action="store_true", help=others)


def _show(client: Client, options: argparse.Namespace) -> int:
    return _print(client.get_classes(), json=options.json)


def _set(client: Client, options: argparse.Namespace) -> int:
    classes = read_entries(options.file)
    version, present = _present(client)
    renamed, merged = dict(options.rename or ()), dict(options.merge or ())
    retired = list(options.retire or ())
    kept = {entry["name"] for entry in classes}
    if unexplained := [name for name in present if name not in {*kept, *renamed, *merged, *retired}]:
        if not options.retire_others:
            raise WrongUsage(
                f"{options.file} lacks {', '.join(map(repr, unexplained))}: say what became of them with --rename "
                "OLD=NEW, --merge OLD=NEW or --retire OLD; --retire-others ignores the pixels of all of them."
            )
        retired += unexplained
    made = client.put_classes(classes, version, renamed=renamed, merged=merged, retired=retired)
    return _print(made, json=options.json)


def _present(client: Client) -> tuple[int, Sequence[str]]:
    """Return version and names of the present list; 0 and none if there is none yet."""
    from service.client.call_errors import Refused  # noqa: PLC0415 - slow

    try:
        found = client.get_classes()
    except Refused as error:
        if error.slug not in NO_LIST:
            raise
        return 0, ()
    return found.version, [each.name for each in found.classes]


def read_entries(file: Path) -> list[Mapping[str, Any]]:
    """Read names and colours of a classes.toml. Raises WrongUsage."""
    try:
        entries = tomllib.loads(file.read_text(encoding="utf-8-sig"))["classes"]
        return [{key: entry[key] for key in ("name", "color") if key in entry} for entry in entries]
    except (OSError, ValueError, KeyError, TypeError) as error:
        remedy = "write a [[classes]] table with a name for each class"
        raise WrongUsage(f"{file} cannot be read ({error!r}): {remedy}.") from None


def _print(found: ServiceClasses, *, json: bool) -> int:
    if json:
        print_json(found.model_dump(mode="json"))
        return DONE
    say(f"version {found.version}")
    heads = ("CLASS", "ID", "COLOUR", "LABELS", "PIXELS")
    rows = [(each.name, each.id, f"#{bytes(each.color).hex()}", each.labels, each.pixels) for each in found.classes]
    print_table(heads, rows)
    for aside in found.set_aside:
        note(f"{aside.pixels} pixels of {aside.name!r} in {aside.labels} labels are ignored")
    return DONE


def _pair(text: str) -> tuple[str, str]:
    old, separator, new = text.partition("=")
    if not separator or not old or not new:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form OLD=NEW")
    return old, new
