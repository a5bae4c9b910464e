"""Who may make which call. Each route names the scopes that it needs: `dependencies=[needs("train")]`.

Without scopes any valid key will do. What needs no key at all is said in a list: `FREE`. A test walks over all routes
and fails for one that is in neither.
"""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address, ip_network
from typing import Annotated, Any

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes

from service.api.dependencies import StateOf
from service.api.local_trust import check_host, check_origin, is_near
from service.api.middleware.security_headers import add_headers
from service.errors import Forbidden, KeyInvalid, KeyMissing, MaskloopError, Unauthorized
from service.keys.caller import Caller
from service.keys.rate_limits import Quota, TooMany
from service.scopes import SCOPES, Scope
from service.state import State

# Probes, and the description of the interface: they tell nothing that is anybody's.
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
# What an IPv6 host has to itself: it changes its address within it as it likes.
IPV6_HOST = 64

_bearer = HTTPBearer(auto_error=False, scheme_name="bearer", description="A key, as `Authorization: Bearer KEY`")
_header = APIKeyHeader(name="X-API-Key", auto_error=False, scheme_name="header", description="A key by itself")

Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
Header = Annotated[str | None, Depends(_header)]


def needs(*scopes: Scope) -> Any:
    """The dependency of a route that only callers with all of these scopes may ask."""
    return Security(_admit, scopes=scopes)


def needs_key_from_afar() -> Any:
    """The dependency of /metrics: free on this machine, or where the settings say so."""
    return Depends(_admit_near)


def require(request: Request, scope: Scope) -> None:
    """One scope more, for a call whose parameters ask for it.

    Raises:
        Unauthorized: The caller has no key.
        ScopeMissing: The key does not have it.
    """
    state: State = request.state.maskloop
    caller: Caller = request.state.caller
    try:
        caller.require(scope)
    except MaskloopError as error:
        _refuse(request, state, error)
        raise


async def _admit(request: Request, scopes: SecurityScopes, state: StateOf, bearer: Bearer, header: Header) -> None:
    # A route may ask twice, by its router and by itself: a request is counted once.
    if "caller" not in request.scope["state"]:
        try:
            request.state.caller = caller = _caller(request, state, header or (bearer.credentials if bearer else None))
            _tell(request, state.rate_limits.take(caller))
        except MaskloopError as error:
            _refuse(request, state, error)
            raise
    for scope in scopes.scopes:
        require(request, scope)  # type: ignore[arg-type]  # `needs` takes no others


async def _admit_near(request: Request, state: StateOf, bearer: Bearer, header: Header) -> None:
    if not state.settings.open_metrics and not is_near(request.scope, state.settings):
        await _admit(request, SecurityScopes(), state, bearer, header)


def _caller(request: Request, state: State, key: str | None) -> Caller:
    settings = state.settings
    if key is not None:
        try:
            return state.keys.caller(key)
        except KeyInvalid:
            state.rate_limits.fail(_address(request), settings.failed_keys_per_minute)
            raise
    scopes = settings.anonymous_scopes
    if not scopes:
        if state.keys.needed or not is_near(request.scope, settings):
            raise KeyMissing(
                "Send a key as `Authorization: Bearer KEY`. Where the service runs, `python -m service keys create "
                "NAME --scope predict` makes one."
            )
        check_host(request.scope, settings)
        scopes = SCOPES
    check_origin(request.scope, settings)
    return Caller(_address(request), None, frozenset(scopes), settings.anonymous_rate_limit_per_minute)


def _address(request: Request) -> str:
    host = request.client.host if request.client else "unknown"
    try:
        address = ip_address(host)
    except ValueError:
        return host
    return str(ip_network((address, IPV6_HOST), strict=False)) if isinstance(address, IPv6Address) else host


def _tell(request: Request, quota: Quota | None) -> None:
    if quota is not None:
        add_headers(request.scope, quota.headers())


def _refuse(request: Request, state: State, error: MaskloopError) -> None:
    state.metrics.callers_refused.labels(error.slug).inc()
    if isinstance(error, TooMany):
        _tell(request, error.quota)
    elif isinstance(error, Unauthorized):
        add_headers(request.scope, {"WWW-Authenticate": _challenge(error)})
    elif isinstance(error, Forbidden):
        add_headers(request.scope, {"WWW-Authenticate": f'{CHALLENGE}, error="insufficient_scope"'})


def _challenge(error: Unauthorized) -> str:
    """By RFC 6750, section 3.1: who sent no key is told of no error."""
    return CHALLENGE if isinstance(error, KeyMissing) else f'{CHALLENGE}, error="invalid_token"'
