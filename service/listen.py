"""Open the port, or say who should move."""

from __future__ import annotations

import errno
import socket

# Connections wait here while a dead API process is started again.
BACKLOG = 512


class PortTaken(OSError):  # noqa: N818 - reads as what it is
    """The address cannot be listened on; the message says what to do."""


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket; port 0 takes any that is free.

    Raises:
        PortTaken: It is in use, not allowed, or not an address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            remedy = "stop the program that uses it, or choose another with --port"
        else:
            remedy = "choose another --host or --port"
        raise PortTaken(f"cannot listen on {host}:{port} ({error.strerror or error}): {remedy}") from None
