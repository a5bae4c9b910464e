"""How both clients connect."""

from __future__ import annotations

from typing import Any

import httpx

from service.client.call_errors import Unreachable

DEFAULT_SERVER = "http://127.0.0.1:8000"
TIMEOUT_S = 60.0
CONNECT_TIMEOUT_S = 10.0
# No proxy of HTTP_PROXY reaches these.
LOOPBACK = ("all://127.0.0.1", "all://localhost", "all://[::1]")


def http_options(server: str, key: str | None, timeout_s: float) -> dict[str, Any]:
    """Return the arguments of httpx's client. Raises Unreachable for an address that is none."""
    try:
        url = httpx.URL(server)
    except httpx.InvalidURL as error:
        raise Unreachable(f"{server} is no address of a server ({error}): write it as http://HOST:PORT.") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise Unreachable(f"{server} is no address of a server: write it as http://HOST:PORT.")
    return {
        "base_url": url,
        "headers": {"Authorization": f"Bearer {key}"} if key else {},
        "mounts": dict.fromkeys(LOOPBACK),
        "timeout": httpx.Timeout(timeout_s, connect=min(timeout_s, CONNECT_TIMEOUT_S)),
    }
