"""The HTTP side as a process: one uvicorn, one process, on a socket that may have been opened before."""

from __future__ import annotations

import math
import threading
from socket import socket
from types import FrameType

import uvicorn

from service.allocator import keep_few_arenas
from service.api.app import create_app
from service.keys.exposure import check_exposure
from service.listen import listen
from service.logs import configure_logs
from service.models.bundle import read_bundle
from service.settings import Settings


class Server(uvicorn.Server):
    """uvicorn, which also tells streams without an end that they have one."""

    def __init__(self, config: uvicorn.Config, stopping: threading.Event) -> None:
        super().__init__(config)
        self._stopping = stopping

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """As uvicorn does, and set `stopping`."""
        self._stopping.set()
        super().handle_exit(sig, frame)


def serve(settings: Settings, sock: socket | None = None) -> None:
    """Serve until SIGTERM or SIGINT; requests under way are answered first.

    Args:
        settings: Everything else.
        sock: Already listening. None: listen on `settings.host` and `settings.port`.

    Raises:
        OpenToAll: Others would reach it, and there is no key.
        PortTaken: Somebody else listens there.
        BundleInvalid: The model to begin with is none.
    """
    keep_few_arenas()
    configure_logs(settings)
    if settings.model:
        # Said in one line here; inside the application it would be a traceback.
        read_bundle(settings.start_model, verify=False)
    if sock is None:
        check_exposure(settings)
        sock = listen(settings.host, settings.port)
    app = create_app(settings)
    app.state.stopping = threading.Event()
    # One process: the model is in memory once, batches and metrics are whole. Our own log lines tell of each request.
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(settings.drain_s),
    )
    Server(config, app.state.stopping).run(sockets=[sock])
