"""A receiver of webhooks for tests, on a real port of the loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Receiver:
    """What was received, and what is answered."""

    url: str = ""
    status: int = 204
    location: str = ""
    """Of a redirect."""
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    """Path, headers in lower case, and body."""

    @property
    def messages(self) -> list[dict[str, Any]]:
        """Return the parsed bodies."""
        return [json.loads(body) for _, _, body in self.requests]

    @property
    def types(self) -> list[str]:
        """Return the types of the messages."""
        return [message["type"] for message in self.messages]


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Receive during the block."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.requests.append((self.path, {name.lower(): text for name, text in self.headers.items()}, body))
            self.send_response(receiver.status)
            if receiver.location:
                self.send_header("Location", receiver.location)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST

        def log_message(self, *_: Any) -> None:
            """Stay quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_port}/hook?source=test"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
