"""Run the application with uvicorn: one process, on an open socket."""

from __future__ import annotations

import math
import threading
from types import FrameType

import uvicorn

from service.api.app import create_app
from service.api.middleware.http_protocol import LimitedProtocol
from service.state import State


class Server(uvicorn.Server):
    """uvicorn server that also ends event streams on shutdown."""

    def __init__(self, config: uvicorn.Config, stopping: threading.Event) -> None:
        super().__init__(config)
        self._stopping = stopping

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Set `stopping`, then exit as uvicorn does."""
        self._stopping.set()
        super().handle_exit(sig, frame)


def make_server(state: State) -> Server:
    """Create a server that runs until SIGTERM or SIGINT and then closes the state."""
    app = create_app(state.settings, state)
    app.state.stopping = threading.Event()
    # The access log is our own (observability.py).
    config = uvicorn.Config(
        app,
        http=LimitedProtocol,
        ws="none",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        # Longer than load balancers and proxies (60 s) keep theirs: they would send a request on a closed connection.
        timeout_keep_alive=75,
        timeout_graceful_shutdown=math.ceil(state.settings.drain_s),
    )
    return Server(config, app.state.stopping)
