"""Open the TCP port, and pass the socket from the supervisor to the API process.

It is sent over a Unix socket pair, because the API process starts before the port is open.
"""

from __future__ import annotations

import errno
import socket

# Connections wait here while a crashed API process restarts.
BACKLOG = 512
MAX_MESSAGE_BYTES = 4096
# The kernel disconnects a client that does not acknowledge data for this long; http_protocol.py limits the time of data
# that this process buffers.
TCP_USER_TIMEOUT_MS = 60_000


class PortTaken(OSError):  # noqa: N818 - named like the errors of service/errors.py
    """The address cannot be listened on."""


def listen(host: str, port: int) -> socket.socket:
    """Open a listening TCP socket; port 0 chooses a free port. Raises PortTaken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        sock = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            remedy = "stop the program that uses it, or choose another port with --port or MASKLOOP_PORT"
        else:
            remedy = "choose another address with --host and --port, or MASKLOOP_HOST and MASKLOOP_PORT"
        raise PortTaken(f"cannot listen on {host}:{port} ({error.strerror or error}): {remedy}") from None
    # Linux only. Accepted connections inherit it.
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, TCP_USER_TIMEOUT_MS)
    return sock


def send_socket(pair: socket.socket, sock: socket.socket, broker_url: str) -> None:
    """Send a listening socket and the broker's URL to the other end of a Unix socket pair."""
    # A descriptor needs at least one byte of data; the URL may be empty.
    socket.send_fds(pair, [b"\n" + broker_url.encode()], [sock.fileno()])


def receive_socket(descriptor: int) -> tuple[socket.socket, str]:
    """Wait for the message of `send_socket`. Raises OSError if the parent process has ended."""
    with socket.socket(fileno=descriptor) as pair:
        message, descriptors, _, _ = socket.recv_fds(pair, MAX_MESSAGE_BYTES, 1)
    if not descriptors:
        raise OSError("the parent process ended before it passed on the listening socket")
    return socket.socket(fileno=descriptors[0]), message[1:].decode()
