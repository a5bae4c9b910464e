"""The server and the key of a command: options, environment variables, and the key file of this machine's service.

The environment is read here, and in the service itself only by `service/settings.py`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from service.client.wrong_usage import WrongUsage

if TYPE_CHECKING:
    from service.client.sync_client import Client

SERVER, API_KEY, DATA_DIR = "MASKLOOP_SERVER", "MASKLOOP_API_KEY", "MASKLOOP_DATA_DIR"
DEFAULT_SERVER = "http://127.0.0.1:8000"
# Of the service: `service/keys/api_key.py`, `service/server_settings.py`.
KEY_FILE, DEFAULT_DATA_DIR = "api-key", "maskloop-data"


def add_connection(command: argparse.ArgumentParser) -> None:
    """Add the options that all commands of the client share."""
    group = command.add_argument_group("connection")
    group.add_argument("--server", metavar="URL", help=f"address of the service (default: ${SERVER}, {DEFAULT_SERVER})")
    group.add_argument(
        "--key-file",
        type=Path,
        metavar="FILE",
        help=f"file with an API key (default: the key in ${API_KEY}; for a service on this machine, {KEY_FILE} in "
        f"${DATA_DIR} or ./{DEFAULT_DATA_DIR})",
    )
    group.add_argument(
        "--timeout", type=float, default=60.0, metavar="S", help="longest silence of the service, in s (default: 60)"
    )
    command.add_argument("--json", action="store_true", help="print one JSON document on standard output")


def connect(options: argparse.Namespace) -> Client:
    """Return a client, and tell on standard error which server and key it uses. Raises WrongUsage, CallError."""
    # Slow, and parsers do not need it.
    from service.client.call_errors import Unreachable  # noqa: PLC0415
    from service.client.sync_client import Client  # noqa: PLC0415

    server = options.server or os.environ.get(SERVER) or DEFAULT_SERVER
    server = server if "://" in server else f"http://{server}"
    key, origin = find_key(options.key_file, server)
    try:
        client = Client(server, key, timeout_s=options.timeout)
    except Unreachable as error:
        raise WrongUsage(str(error)) from None
    sys.stderr.write(f"service {server}, {origin}\n")
    if key and server.startswith("http:") and not is_this_machine(server):
        sys.stderr.write("warning: the key is sent unencrypted; use an https address if the network is not yours\n")
    return client


def add_connected(
    subcommands: Any, name: str, text: str, run: Callable[[Client, argparse.Namespace], int]
) -> argparse.ArgumentParser:
    """Add a subcommand that is run with a client."""

    def connected(options: argparse.Namespace) -> int:
        with connect(options) as client:
            return run(client, options)

    command: argparse.ArgumentParser = subcommands.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}."
    )
    add_connection(command)
    command.set_defaults(command=connected)
    return command


def find_key(file: Path | None, server: str) -> tuple[str | None, str]:
    """Return the key, or None, and where it comes from. Raises WrongUsage."""
    if file is not None:
        return _read_key(file), f"key of {file}"
    if key := os.environ.get(API_KEY, "").strip():
        return key, f"key of ${API_KEY}"
    local = Path(os.environ.get(DATA_DIR) or DEFAULT_DATA_DIR) / KEY_FILE
    if is_this_machine(server) and local.is_file():
        return _read_key(local), f"key of {local}"
    return None, "no key"


def is_this_machine(server: str) -> bool:
    """Whether an address is a loopback address or localhost."""
    host = urlsplit(server).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _read_key(file: Path) -> str:
    try:
        words = file.read_text(encoding="utf-8-sig").split()
    except (OSError, UnicodeDecodeError) as error:
        raise WrongUsage(f"{file} cannot be read as a key file ({error}): give another --key-file.") from None
    # As in a header, where other characters are not allowed.
    if len(words) != 1 or not words[0].isascii():
        raise WrongUsage(f"{file} must contain one API key and nothing else: `maskloop keys create` prints one.")
    return words[0]
