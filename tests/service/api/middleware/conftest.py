"""A service that runs as under `python -m service serve`, in a thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from service.api.uvicorn_server import make_server
from service.listening_socket import listen
from service.settings import Settings
from service.state import start_state
from tests.service.conftest import eventually

Address = tuple[str, int]


@contextmanager
def serving(settings: Settings) -> Iterator[Address]:
    """Run the service until the end of the block, and return its address; its model is ready."""
    with listen("127.0.0.1", 0) as sock:
        state = start_state(settings)
        server = make_server(state)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        try:
            eventually(lambda: server.started and state.active_model.current is not None, within_s=60)
            yield sock.getsockname()
        finally:
            server.should_exit = True
            thread.join(60)
            assert not thread.is_alive()
