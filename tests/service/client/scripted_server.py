"""An HTTP server on a real port whose answers a test writes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True, slots=True)
class Scripted:
    """An answer, after a delay; status 0: close the connection instead."""

    status: int
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0


@dataclass(slots=True)
class Script:
    """Answers in their order, the last one again and again; and the requests that came."""

    url: str
    answers: list[Scripted] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@contextmanager
def scripted_server() -> Iterator[Script]:
    """Run a server until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            script.requests.append(f"{self.command} {self.path}")
            scripted = script.answers.pop(0) if len(script.answers) > 1 else script.answers[0]
            time.sleep(scripted.delay_s)
            if scripted.status == 0:
                self.close_connection = True
                return
            self.send_response(scripted.status)
            for name, value in scripted.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(scripted.body)))
            self.end_headers()
            # The client may have gone.
            with suppress(BrokenPipeError):
                self.wfile.write(scripted.body)

        do_GET = do_POST = do_PUT = answer

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    script = Script(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield script
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
