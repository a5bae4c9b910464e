"""Reject requests that a web page of another site sends through a browser (CSRF, DNS rebinding).

A page in a browser on this machine can send requests to 127.0.0.1, although it cannot read the responses: the `Origin`
check rejects them. It can also let its domain name resolve to 127.0.0.1 and become "same origin": the `Host` check
rejects that. Both apply to requests without a key. The `Origin` check also applies to requests with a key from the
cookie, which browsers attach whatever page sends them.
"""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope

from service.addresses import parse_address
from service.errors import ForeignPage

# They change nothing, and a page of another site cannot read their responses.
SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}


def check_host(scope: Scope, allowed_hosts: Collection[str]) -> None:
    """Raise ForeignPage if `Host` is a domain name that is not allowed."""
    name = _host_name(Headers(scope=scope).get("host", ""))
    allowed = {host.lower() for host in allowed_hosts}
    if "." not in name or parse_address(name) or name.endswith(".localhost") or name in allowed:
        return
    raise ForeignPage(
        f"The host name {name} is not allowed without a key: use 127.0.0.1 or localhost, add the name to "
        "MASKLOOP_ALLOWED_HOSTS, or send a key as `Authorization: Bearer KEY`."
    )


def check_origin(scope: Scope, allowed_origins: Collection[str]) -> None:
    """Raise ForeignPage if a request that changes something comes from a page of another origin."""
    headers = Headers(scope=scope)
    origin = headers.get("origin", "")
    if scope["method"] in SAFE_METHODS or {origin, "*"} & set(allowed_origins):
        return
    site = headers.get("sec-fetch-site")
    # Older browsers, and pages served over http, send only `Origin`; programs send neither.
    same_origin = site in {"same-origin", "none"} if site else not origin or _netloc(origin) == headers.get("host")
    if not same_origin:
        raise ForeignPage(
            "A page of another origin sent this request: send a key as `Authorization: Bearer KEY`, or add the origin "
            "to MASKLOOP_CORS_ORIGINS."
        )


def _host_name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return host


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return origin
