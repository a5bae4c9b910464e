"""Checks against CSRF and DNS rebinding, and who counts as a caller on this machine."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import Request
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from service.api.auth import FORWARDED, is_local
from service.api.cross_site import check_host, check_origin
from service.errors import ForeignPage
from tests.service.conftest import MakeSettings, encoded, serve
from tests.service.tiny_bundle import picture


def scope(method: str = "POST", **headers: str) -> dict[str, Any]:
    raw = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    return {"type": "http", "method": method, "server": ("127.0.0.1", 8000), "headers": raw}


@pytest.mark.parametrize(
    ("client", "local"),
    [
        (("127.0.0.1", 50000), True),
        (("::1", 50000), True),
        (("::ffff:127.0.0.1", 50000), True),
        (("", 0), True),  # a Unix socket
        (None, True),
        (("203.0.113.7", 0), False),
        (("2001:db8::7", 0), False),
        (("172.18.0.1", 40000), False),  # the gateway of a container's network
    ],
)
def test_loopback_peers_are_local(client: tuple[str, int] | None, local: bool) -> None:
    assert is_local(Request(scope() | {"client": client})) is local


@pytest.mark.parametrize("name", sorted(FORWARDED))
def test_forwarded_requests_are_not_local(name: str) -> None:
    assert not is_local(Request(scope(**{name: "127.0.0.1"}) | {"client": ("127.0.0.1", 50000)}))


def test_metrics_need_a_key_through_a_proxy(make_settings: MakeSettings) -> None:
    with serve(make_settings(api_key="k" * 40)) as client:
        inner: Any = client.app
        app: Any = ProxyHeadersMiddleware(inner, trusted_hosts="*")
        proxied = TestClient(app, base_url="http://127.0.0.1:8000", client=("127.0.0.1", 50000))
        proxied.app_state.update(client.app_state)
        assert proxied.get("/metrics").status_code == 200
        for address in ("203.0.113.7", "127.0.0.1"):
            assert proxied.get("/metrics", headers={"X-Forwarded-For": address}).status_code == 401


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1:8000", True),
        ("localhost:8000", True),
        ("LOCALHOST", True),
        ("[::1]:8000", True),
        ("192.168.1.5", True),
        ("api:8000", True),
        ("maskloop.localhost", True),
        ("mine.example.com", True),
        ("OTHER.example.com", True),
        ("", True),
        ("evil.example.com", False),
        ("evil.example.com:8000", False),
        ("127.0.0.1.evil.com", False),
        ("localhost.evil.com:8000", False),
        ("evil.com.", False),
    ],
)
def test_check_host(host: str, allowed: bool) -> None:
    names = ("mine.example.com", "Other.example.com")
    if allowed:
        check_host(scope(host=host), names)
    else:
        with pytest.raises(ForeignPage, match="MASKLOOP_ALLOWED_HOSTS"):
            check_host(scope(host=host), names)


@given(st.text(st.characters(max_codepoint=255), max_size=30))
def test_check_host_accepts_or_rejects_any_text(host: str) -> None:
    try:
        check_host(scope(host=host), ())
    except ForeignPage:
        assert "." in host


SELF = {"host": "127.0.0.1:8000"}
EVIL = "https://evil.example.com"


@pytest.mark.parametrize(
    ("method", "headers", "allowed"),
    [
        ("POST", {}, True),  # no browser
        ("POST", {"origin": "http://127.0.0.1:8000"}, True),
        ("POST", {"sec_fetch_site": "same-origin", "origin": "http://127.0.0.1:8000"}, True),
        ("POST", {"sec_fetch_site": "none"}, True),
        ("POST", {"origin": EVIL}, False),
        ("POST", {"origin": "null"}, False),
        ("POST", {"origin": "http://[::1"}, False),
        ("POST", {"origin": "http://127.0.0.1:9000"}, False),
        ("POST", {"sec_fetch_site": "cross-site"}, False),
        ("POST", {"sec_fetch_site": "same-site", "origin": "http://127.0.0.1:8000"}, False),
        ("DELETE", {"sec_fetch_site": "cross-site", "origin": EVIL}, False),
        ("PUT", {"origin": EVIL}, False),
        ("GET", {"origin": EVIL}, True),  # it cannot read the answer
        ("POST", {"sec_fetch_site": "cross-site", "origin": "https://label.example.com"}, True),
    ],
)
def test_check_origin(method: str, headers: dict[str, str], allowed: bool) -> None:
    origins = ("https://label.example.com",)
    if allowed:
        check_origin(scope(method, **SELF, **headers), origins)
    else:
        with pytest.raises(ForeignPage, match="MASKLOOP_CORS_ORIGINS"):
            check_origin(scope(method, **SELF, **headers), origins)


def test_anonymous_requests_are_checked(make_settings: MakeSettings) -> None:
    image = encoded(picture())
    with serve(make_settings(api_key="")) as client:
        assert client.post("/v1/images", content=image, headers={"Origin": EVIL}).status_code == 403
        rebound = client.get("/v1/models", headers={"Host": "evil.example.com"})
        assert (rebound.status_code, rebound.json()["type"]) == (403, "urn:maskloop:problem:foreign-page")
        assert client.app_state["maskloop"].images.counts().unlabelled == 0
        assert client.post("/v1/images", content=image).status_code == 201


def test_requests_with_a_key_in_a_header_are_not_checked(make_settings: MakeSettings) -> None:
    headers = {"Origin": EVIL, "Host": "maskloop.example.com", "X-API-Key": "k" * 40}
    with serve(make_settings(api_key="k" * 40)) as client:
        assert client.post("/v1/images", content=encoded(picture()), headers=headers).status_code == 201
