"""Authentication and authorisation. Each route declares its scopes: `dependencies=[needs("train")]`.

`needs()` accepts any valid key; the routes in `FREE` need none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Annotated, Any
from urllib.parse import quote, unquote

from fastapi import Depends, Request, Response, Security
from fastapi.responses import RedirectResponse
from fastapi.security import APIKeyCookie, APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes

from service.addresses import parse_address
from service.api.cross_site import check_host, check_origin
from service.api.dependencies import StateOf
from service.api.middleware.security_headers import add_headers
from service.errors import Forbidden, KeyInvalid, KeyMissing, MaskloopError, Unauthorized
from service.keys.caller import Caller
from service.keys.rate_limits import Quota, QuotaExceeded
from service.scopes import Scope
from service.state import State

FREE = {
    "/",
    "/livez",
    "/readyz",
    "/v2/health/live",
    "/v2/health/ready",
    "/v2/models/{model}/ready",
    "/v2/models/{model}/versions/{version}/ready",
    "/docs",
    "/docs/page",
    "/docs/swagger",
    "/openapi.json",
}

CHALLENGE = 'Bearer realm="maskloop"'
KEY_MISSING = (
    "Send a key as `Authorization: Bearer KEY`. On the machine of the service, `maskloop keys show` prints "
    "the key of the first start; `maskloop keys create NAME --scope predict` creates another."
)
COOKIE = "maskloop_key"
# An IPv6 host owns a /64 network and can use any address in it.
IPV6_HOST_PREFIX = 64
# Headers in which proxies name the client.
FORWARDED = {"forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip"}

_bearer = HTTPBearer(auto_error=False, scheme_name="bearer", description="A key, as `Authorization: Bearer KEY`")
_header = APIKeyHeader(name="X-API-Key", auto_error=False, scheme_name="header", description="A key alone")
_cookie = APIKeyCookie(
    name=COOKIE, auto_error=False, scheme_name="cookie", description="For browsers: the page `/?key=KEY` sets it"
)


# Async, like all of these dependencies: FastAPI runs others in a thread.
async def _sent_key(
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    header: Annotated[str | None, Depends(_header)],
) -> str | None:
    return header or (bearer.credentials if bearer else None)


SentKey = Annotated[str | None, Depends(_sent_key)]
CookieKey = Annotated[str | None, Depends(_cookie)]


def needs(*scopes: Scope) -> Any:
    """Dependency of a route that requires all these scopes."""
    return Security(_authorise, scopes=scopes)


def require(request: Request, scope: Scope) -> None:
    """Require one more scope, because of a parameter. Raises Unauthorized (no key) or ScopeMissing."""
    caller: Caller = request.state.caller
    with _refusals_recorded(request):
        caller.require(scope)


def caller_name(request: Request) -> str | None:
    """Name of the caller's key, for records."""
    caller: Caller = request.state.caller
    return caller.name


def log_in(request: Request, state: State, key: str) -> Response:
    """Store a valid key in a session cookie, and redirect to `/` so that it leaves the address bar.

    Raises:
        KeyInvalid: The key is unknown, revoked or expired.
        QuotaExceeded: The address has sent too many invalid keys.
    """
    with _refusals_recorded(request):
        _authenticate_key(request, state, key)
    response = RedirectResponse("/", status_code=303)
    # Quoted: a configured key may contain any character.
    secure = request.url.scheme == "https"
    response.set_cookie(COOKIE, quote(key, safe=""), httponly=True, samesite="strict", path="/", secure=secure)
    return response


async def _authorise(request: Request, scopes: SecurityScopes, state: StateOf, key: SentKey, cookie: CookieKey) -> None:
    # The router and the route may both have this dependency: the request is counted once.
    if "caller" not in request.scope["state"]:
        with _refusals_recorded(request):
            request.state.caller = caller = _authenticate(request, state, key, cookie)
            _add_quota(request, state.rate_limits.take(caller))
    for scope in scopes.scopes:
        require(request, scope)  # type: ignore[arg-type]  # `needs` takes no others


async def authorise_unless_local(request: Request, state: StateOf, key: SentKey, cookie: CookieKey) -> None:
    """Dependency of /metrics: callers on this machine need no key; with `open_metrics`, nobody does."""
    if state.settings.open_metrics or is_local(request):
        return
    with _refusals_recorded(request):
        if key is None and cookie is None:
            raise KeyMissing(KEY_MISSING)
    await _authorise(request, SecurityScopes(), state, key, cookie)


def is_local(request: Request) -> bool:
    """Whether a program on this machine sent the request; False if it names itself as a proxy."""
    if FORWARDED.intersection(request.headers.keys()):
        return False
    address = parse_address(request.client.host) if request.client else None
    # No IP address: a Unix socket, or the client of a test.
    return address is None or address.is_loopback


def _authenticate(request: Request, state: State, key: str | None, cookie: str | None) -> Caller:
    settings = state.settings
    if key is not None:
        return _authenticate_key(request, state, key)
    if cookie is not None:
        # Browsers also attach the cookie for pages on another port of this host, but for no other host name: DNS
        # rebinding is no risk.
        check_origin(request.scope, ())
        return _authenticate_cookie(request, state, unquote(cookie))
    scopes = settings.resolved_anonymous_scopes
    # The default opens the service to programs on this machine, not to callers that a proxy names.
    if not scopes or (settings.anonymous_scopes is None and not is_local(request)):
        raise KeyMissing(KEY_MISSING)
    check_host(request.scope, settings.allowed_hosts)
    check_origin(request.scope, settings.cors_origins)
    return Caller(_rate_limit_address(request), None, frozenset(scopes), settings.anonymous_rate_limit_per_minute)


def _authenticate_key(request: Request, state: State, key: str) -> Caller:
    try:
        return state.keys.authenticate(key)
    except KeyInvalid:
        state.rate_limits.count_failure(_rate_limit_address(request), state.settings.failed_keys_per_minute)
        raise


def _authenticate_cookie(request: Request, state: State, key: str) -> Caller:
    try:
        return _authenticate_key(request, state, key)
    except MaskloopError:
        # Otherwise every later request of this browser would fail, too.
        add_headers(request.scope, {"Set-Cookie": f"{COOKIE}=; Max-Age=0; Path=/; HttpOnly; SameSite=Strict"})
        raise


def _rate_limit_address(request: Request) -> str:
    host = request.client.host if request.client else "unknown"
    try:
        address = ip_address(host)
    except ValueError:
        return host
    return str(ip_network((address, IPV6_HOST_PREFIX), strict=False)) if isinstance(address, IPv6Address) else host


def _add_quota(request: Request, quota: Quota | None) -> None:
    if quota is not None:
        add_headers(request.scope, quota.headers())


@contextmanager
def _refusals_recorded(request: Request) -> Iterator[None]:
    """Count a refusal, and add its response headers."""
    try:
        yield
    except MaskloopError as error:
        state: State = request.state.maskloop
        state.metrics.callers_refused.labels(error.slug).inc()
        if isinstance(error, QuotaExceeded):
            _add_quota(request, error.quota)
        elif isinstance(error, Unauthorized):
            # RFC 6750, section 3.1: a request without a key gets no error code.
            code = "" if isinstance(error, KeyMissing) else ', error="invalid_token"'
            add_headers(request.scope, {"WWW-Authenticate": CHALLENGE + code})
        elif isinstance(error, Forbidden):
            add_headers(request.scope, {"WWW-Authenticate": f'{CHALLENGE}, error="insufficient_scope"'})
        raise
