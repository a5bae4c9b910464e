"""Run the HTTP API as a process.

The modules that load the model are imported first, the HTTP modules while a thread loads it.
"""

from __future__ import annotations

import gc
from socket import socket

from service.addresses import http_url
from service.allocator import configure_malloc
from service.keys.first_start import check_exposure, create_first_key, print_first_key
from service.keys.key_store import KeyStore
from service.listening_socket import listen
from service.logs import configure_logs
from service.settings import Settings, open_telemetry_variables
from service.state import start_state
from service.tracing import open_tracing


def serve(settings: Settings, sock: socket | None = None) -> None:
    """Serve until SIGTERM or SIGINT, on `sock` or on the address of the settings; running requests are finished first.

    Raises PublicWithoutKey, PortTaken, or BundleInvalid for the start model.
    """
    configure_malloc()
    configure_logs(settings)
    if sock is None:
        check_exposure(settings)
        sock = listen(settings.host, settings.port)
    state = start_state(settings, open_tracing(open_telemetry_variables()))
    try:
        text = create_first_key(settings, state.keys, KeyStore(state.database))
        if text is not None:
            print_first_key(settings, text, http_url(*sock.getsockname()[:2]))
        from service.api.uvicorn_server import make_server  # noqa: PLC0415 - see above

        server = make_server(state)
    except BaseException:
        state.close()
        raise
    resume_garbage_collection()
    server.run(sockets=[sock])


def resume_garbage_collection() -> None:
    """Enable garbage collection after a start without it; existing objects are not scanned again."""
    gc.freeze()
    gc.enable()
