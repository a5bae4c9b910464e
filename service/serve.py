"""The HTTP side as a process, from the settings to the last answer.

Ready is ready with a model. So what loads it is imported first, and what speaks HTTP while a thread loads it.
"""

from __future__ import annotations

import gc
from socket import socket

import structlog

from service.allocator import prepare_heaps
from service.keys.exposure import check_exposure, is_loopback
from service.keys.gateway import gateways
from service.listening_socket import listen
from service.logs import configure_logs
from service.settings import Settings, open_telemetry_variables
from service.state import State, start_state
from service.tracing import open_tracing

log = structlog.stdlib.get_logger(__name__)


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
        from service.api.uvicorn_server import make_server  # noqa: PLC0415 - see above

        server = make_server(state)
    except BaseException:
        state.close()
        raise
    _say_who_may_ask(state)
    collect_garbage_again()
    server.run(sockets=[sock])


def _say_who_may_ask(state: State) -> None:
    """In a container, where it is not plain to see who counts as the machine's own."""
    settings = state.settings
    if state.keys.needed or settings.anonymous_scopes or not is_loopback(settings.published_on):
        return
    if gateway := sorted(gateways()):
        log.info("without a key only the machine around this container may ask, not other containers", gateway=gateway)
    else:
        log.warning("no way leads out of this container's network, so nobody outside of it may ask without a key")


def collect_garbage_again() -> None:
    """After a start without: what it made stays for good, and need not be looked at each time."""
    gc.freeze()
    gc.enable()
