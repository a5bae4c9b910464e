"""`maskloop models list | show | activate | import | rollback | delete`."""

from __future__ import annotations

import argparse
import tempfile
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.client.commands.connection import add_connected
from service.client.commands.exit_codes import DONE, FAILED
from service.client.commands.terminal import note, print_json, print_table, say
from service.client.wrong_usage import WrongUsage

if TYPE_CHECKING:
    from service.client.answers import Activation, Models
    from service.client.sync_client import Client

COLUMNS = ("VERSION", "NAME", "STATE", "MIOU", "CREATED", "RUN", "SERVES")
NESTED = ("metrics", "provenance", "classes")
POLL_S = 0.5
MANIFEST = "manifest.json"


def add_models(commands: Any) -> None:
    """Add the subcommands."""
    models = commands.add_parser(
        "models", help="list, import, activate and delete models", description="Model versions of a service."
    )
    subcommands = models.add_subparsers(required=True, metavar="COMMAND")

    command = add_connected(subcommands, "list", "list the versions, newest first", _list)
    command.add_argument("--deleted", action="store_true", help="list deleted versions too")

    add_connected(subcommands, "show", "show a version with its classes", _show).add_argument(
        "version", metavar="VERSION"
    )

    command = add_connected(subcommands, "activate", "activate a version and wait until it serves", _activate)
    command.add_argument("version", metavar="VERSION")
    command.add_argument("--reason", help="recorded; needed for a version that was rejected or withdrawn")
    add_connected(subcommands, "rollback", "activate the version that was active before", _rollback)

    command = add_connected(subcommands, "import", "upload a bundle: a folder, or its ZIP", _import)
    command.add_argument("bundle", type=Path, metavar="BUNDLE")
    command.add_argument("--activate", action="store_true", help="activate it, and wait until it serves")

    add_connected(subcommands, "delete", "delete a version that is not in use", _delete).add_argument(
        "version", metavar="VERSION"
    )


def _list(client: Client, options: argparse.Namespace) -> int:
    found = client.list_models(deleted=options.deleted)
    if options.json:
        print_json(found.model_dump(mode="json"))
        return DONE
    rows = []
    for model in found.models:
        serves = "yes" if model.serving else "soon" if model.desired else None
        rows.append((model.version, model.name, model.state, model.miou, model.created_at, model.run_id, serves))
    print_table(COLUMNS, rows)
    if found.error:
        note(f"The last version that was activated could not be loaded: {found.error}")
    return DONE


def _show(client: Client, options: argparse.Namespace) -> int:
    model = client.get_model(options.version)
    if options.json:
        print_json(model.model_dump(mode="json"))
        return DONE
    values = model.model_dump(exclude=set(NESTED))
    print_table(("MODEL", ""), [(name, value) for name, value in values.items() if value is not None])
    say("")
    print_table(("ID", "CLASS"), [(number, entry["name"]) for number, entry in enumerate(model.classes)])
    return DONE


def _activate(client: Client, options: argparse.Namespace) -> int:
    return _activated(client, client.activate_model(options.version, reason=options.reason), options)


def _rollback(client: Client, options: argparse.Namespace) -> int:
    return _activated(client, client.rollback(), options)


def _import(client: Client, options: argparse.Namespace) -> int:
    from service.client.call import Upload  # noqa: PLC0415 - slow

    path: Path = options.bundle
    if not path.exists():
        raise WrongUsage(f"{path}: no such file or folder; `maskloop export` makes a bundle.")
    with tempfile.TemporaryDirectory() as folder:
        model = client.upload_model(Upload.of(_zipped(path, Path(folder)) if path.is_dir() else path))
    if options.activate:
        return _activated(client, client.activate_model(model.version), options)
    if options.json:
        print_json(model.model_dump(mode="json"))
    else:
        say(model.version)
        note(f"`maskloop models activate {model.version}` serves it.")
    return DONE


def _delete(client: Client, options: argparse.Namespace) -> int:
    model = client.delete_model(options.version)
    if options.json:
        print_json(model.model_dump(mode="json"))
    else:
        say(f"{model.version} is deleted; its record stays")
    return DONE


def _activated(client: Client, activation: Activation, options: argparse.Namespace) -> int:
    """Wait until the version serves; 1 if it cannot be loaded or the time is over."""
    deadline = time.monotonic() + options.timeout
    found = client.list_models()
    while found.serving != activation.version and not _failed(found, activation) and time.monotonic() < deadline:
        time.sleep(POLL_S)
        found = client.list_models()
    serves = found.serving == activation.version
    if options.json:
        print_json({**activation.model_dump(mode="json"), "serves": serves, "error": found.error})
    elif serves:
        say(f"{activation.version} serves")
    else:
        note(f"error: {activation.version} does not serve: {found.error or 'it is not loaded yet'}")
    return DONE if serves else FAILED


def _failed(found: Models, activation: Activation) -> bool:
    """Whether the version cannot be loaded; the error may be of an earlier one."""
    return found.error is not None and found.error.startswith(f"{activation.version}:")


def _zipped(bundle: Path, folder: Path) -> Path:
    """Pack a bundle into a file of a folder, uncompressed: weights do not get smaller. Raises WrongUsage."""
    if not (bundle / MANIFEST).is_file():
        raise WrongUsage(f"{bundle} is no bundle: it has no {MANIFEST}; `maskloop export` makes one.")
    packed = folder / "bundle.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for file in sorted(path for path in bundle.rglob("*") if path.is_file()):
            archive.write(file, file.relative_to(bundle).as_posix())
    return packed
