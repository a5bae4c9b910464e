"""Callers without a key: are they this machine's own, and is it they who ask, not a page in their browser?

A service on 127.0.0.1 is reached by everything on the machine, a browser with any page open included. Such a page may
not read answers, but may send requests (so `Origin` is looked at), and may point a name of its own at 127.0.0.1 to be
of the "same origin" (so `Host` is looked at). Where a key is sent neither can happen: pages do not have it.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope

from service.errors import ForeignPage
from service.keys.exposure import is_loopback, plain_address
from service.keys.gateway import gateways
from service.settings import Settings

# They change nothing, and no page can read what they answer.
SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
# How proxies say for whom they ask.
FORWARDED = {"forwarded", "x-forwarded-for", "x-real-ip"}


def is_near(scope: Scope, settings: Settings) -> bool:
    """Whether a request came in at an address that only this machine, or that of the container, can reach.

    A proxy on this machine asks there too, on behalf of others: where it says for whom (`X-Forwarded-For`, which
    uvicorn has read into `client`), that is who asks.
    """
    if settings.published_on:
        return is_loopback(settings.published_on) and _from_around(scope)
    server, client = _ends(scope)
    # No address of the network at all: a Unix socket, or a test's client.
    return (client is None or client.is_loopback) and (server is None or server.is_loopback)


def _from_around(scope: Scope) -> bool:
    """Whether the machine around this container asks, by its published port, or somebody in the container itself.

    Other containers of the same network reach the port without the machine's knowing, by addresses of their own.
    """
    if FORWARDED.intersection(Headers(scope=scope).keys()):
        # A proxy of the machine asks for somebody, and has no loopback address by which uvicorn would believe it.
        return False
    server, client = _ends(scope)
    return client is None or client.is_loopback or client == server or str(client) in gateways()


def _ends(scope: Scope) -> list[IPv4Address | IPv6Address | None]:
    """The addresses of the network that were asked, and that asked."""
    return [end and plain_address(end[0]) for end in (scope.get("server"), scope.get("client"))]


def check_host(scope: Scope, settings: Settings) -> None:
    """Refuse a domain name that is not known to be ours.

    Raises:
        ForeignPage: `Host` is a name that somebody else may have pointed here.
    """
    name = _name(Headers(scope=scope).get("host", ""))
    ours = {host.lower() for host in settings.allowed_hosts}
    if "." not in name or plain_address(name) or name.endswith(".localhost") or name in ours:
        return
    raise ForeignPage(
        f"{name} may be anybody's name for this machine: ask by 127.0.0.1 or localhost, add the name to "
        "MASKLOOP_ALLOWED_HOSTS, or make a key (`python -m service keys create NAME --scope all`)."
    )


def check_origin(scope: Scope, settings: Settings) -> None:
    """Refuse what a page of another site sent.

    Raises:
        ForeignPage: The browser says that it did.
    """
    headers = Headers(scope=scope)
    origin = headers.get("origin", "")
    if scope["method"] in SAFE_METHODS or {origin, "*"} & set(settings.cors_origins):
        return
    site = headers.get("sec-fetch-site")
    # Older browsers, and http pages, say only the origin; other programs say neither.
    same = site in {"same-origin", "none"} if site else not origin or _netloc(origin) == headers.get("host")
    if not same:
        raise ForeignPage(
            "A page of another site asks without a key: send one, or add the page's origin to MASKLOOP_CORS_ORIGINS."
        )


def _name(host: str) -> str:
    """The host without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return host


def _netloc(origin: str) -> str:
    """Host and port; of what is no address, all of it."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return origin
