"""Open the port, or say who should move; and hand the open port to a child, which may be busy importing meanwhile."""

from __future__ import annotations

import errno
import socket

# Connections wait here while a dead API process is started again.
BACKLOG = 512
LONGEST_MESSAGE = 4096
# A client that takes nothing of what the system holds for it is cut off after so long: else it stays there for as long
# as it likes, and nothing limits how many of such clients there are.
# service/api/middleware/http_protocol.py limits what this process holds.
STALLED_MS = 60_000


class PortTaken(OSError):  # noqa: N818 - reads as what it is
    """The address cannot be listened on; the message says what to do."""


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket; port 0 takes any that is free.

    Raises:
        PortTaken: It is in use, not allowed, or not an address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        sock = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            remedy = "stop the program that uses it, or choose another with --port"
        else:
            remedy = "choose another --host or --port"
        raise PortTaken(f"cannot listen on {host}:{port} ({error.strerror or error}): {remedy}") from None
    # Linux alone has it; the connections inherit it.
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALLED_MS)
    return sock


def hand_over(pair: socket.socket, sock: socket.socket, broker_url: str) -> None:
    """Send a listening socket, and where the broker is, to the child at the other end of a Unix socket pair."""
    # One byte at least has to go along with a descriptor; the first says nothing.
    socket.send_fds(pair, [b"\n" + broker_url.encode()], [sock.fileno()])


def take_over(descriptor: int) -> tuple[socket.socket, str]:
    """Wait for what `hand_over` sends; `descriptor` is this process's end of the pair.

    Raises:
        OSError: The parent is gone.
    """
    with socket.socket(fileno=descriptor) as pair:
        message, descriptors, _, _ = socket.recv_fds(pair, LONGEST_MESSAGE, 1)
    if not descriptors:
        raise OSError("the process that started this one has gone")
    return socket.socket(fileno=descriptors[0]), message[1:].decode()
