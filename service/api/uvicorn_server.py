"""uvicorn around the application: one process, on a socket that is open already."""

from __future__ import annotations

import math
import threading
from types import FrameType

import uvicorn

from service.api.app import create_app
from service.api.middleware.http_protocol import Protocol
from service.state import State


class Server(uvicorn.Server):
    """uvicorn, which also tells streams without an end that they have one."""

    def __init__(self, config: uvicorn.Config, stopping: threading.Event) -> None:
        super().__init__(config)
        self._stopping = stopping

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """As uvicorn does, and set `stopping`."""
        self._stopping.set()
        super().handle_exit(sig, frame)


def make_server(state: State) -> Server:
    """A server whose `run` answers until SIGTERM or SIGINT, and closes the state then."""
    app = create_app(state.settings, state)
    app.state.stopping = threading.Event()
    # One process: the model is in memory once, batches and metrics are whole. Our own log lines tell of each request.
    config = uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(state.settings.drain_s),
    )
    return Server(config, app.state.stopping)
