"""The HTTP side as a process, from the settings to the last answer.

Ready is ready with a model. So what loads it is imported first, and what speaks HTTP while a thread loads it.
"""

from __future__ import annotations

import gc
from socket import socket

from service.allocator import prepare_heaps
from service.keys.exposure import check_exposure
from service.listen import listen
from service.logs import configure_logs
from service.settings import Settings, open_telemetry_variables
from service.state import start_state
from service.tracing import open_tracing


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
    prepare_heaps()
    configure_logs(settings)
    if sock is None:
        check_exposure(settings)
        sock = listen(settings.host, settings.port)
    state = start_state(settings, open_tracing(open_telemetry_variables()))
    try:
        from service.api.server import make_server  # noqa: PLC0415 - see above

        server = make_server(state)
    except BaseException:
        state.close()
        raise
    collect_garbage_again()
    server.run(sockets=[sock])


def collect_garbage_again() -> None:
    """After a start without: what it made stays for good, and need not be looked at each time."""
    gc.freeze()
    gc.enable()
