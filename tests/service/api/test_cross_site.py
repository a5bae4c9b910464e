"""Callers without a key: this machine's own are let in, pages in its browser are not."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from service.api.local_trust import check_host, check_origin, is_near
from service.errors import ForeignPage
from service.settings import Settings
from tests.service.conftest import MakeSettings, encoded, serve
from tests.service.tiny_bundle import picture

HERE = Settings()


def scope(method: str = "POST", **headers: str) -> dict[str, Any]:
    raw = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    return {"type": "http", "method": method, "server": ("127.0.0.1", 8000), "headers": raw}


@pytest.mark.parametrize(
    ("server", "near"),
    [
        (("127.0.0.1", 8000), True),
        (("::1", 8000), True),
        (("::ffff:127.0.0.1", 8000), True),
        (("/run/maskloop.sock", None), True),
        (("192.168.1.5", 8000), False),
        (("10.0.0.1", 8000), False),
        (("fe80::1", 8000), False),
    ],
)
def test_the_address_that_was_asked_decides(server: tuple[str, int | None], near: bool) -> None:
    """Not the setting: whatever the socket was bound to, this is where the request came in."""
    asked = scope() | {"server": server}
    assert is_near(asked, HERE) is near
    assert not is_near(asked, Settings(published_on="192.168.1.5"))


@pytest.mark.parametrize(
    ("client", "near"),
    [
        (("127.0.0.1", 50000), True),
        (("::1", 50000), True),
        (("", 0), True),  # a Unix socket
        (None, True),
        (("203.0.113.7", 0), False),
        (("2001:db8::7", 0), False),
    ],
)
def test_whom_a_proxy_on_this_machine_asks_for_is_not_near(client: tuple[str, int] | None, near: bool) -> None:
    assert is_near(scope() | {"client": client}, HERE) is near


INSIDE = ("172.18.0.3", 8000)


@pytest.fixture
def contained(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if in a container whose network has this gateway."""
    monkeypatch.setattr("service.api.local_trust.gateways", lambda: frozenset({"172.18.0.1", "fd00::1"}))


@pytest.mark.usefixtures("contained")
@pytest.mark.parametrize(
    ("client", "near"),
    [
        (("172.18.0.1", 40000), True),  # by the published port
        (("::ffff:172.18.0.1", 40000), True),
        (("fd00::1", 40000), True),
        (("127.0.0.1", 40000), True),  # in the container
        (("172.18.0.3", 40000), True),
        (None, True),
        (("172.18.0.4", 40000), False),  # another container
        (("fd00::4", 40000), False),
        (("192.168.1.9", 40000), False),  # a machine that knows the way to the container's network
    ],
)
def test_other_containers_are_not_near(client: tuple[str, int] | None, near: bool) -> None:
    asked = scope() | {"server": INSIDE, "client": client}
    assert is_near(asked, Settings(published_on="127.0.0.1")) is near
    assert not is_near(asked, Settings(published_on="192.168.1.5"))


@pytest.mark.usefixtures("contained")
@pytest.mark.parametrize("name", ["forwarded", "x-forwarded-for", "x-real-ip"])
def test_whom_a_proxy_outside_of_the_container_asks_for_is_not_near(name: str) -> None:
    asked = scope(**{name: "203.0.113.7"}) | {"server": INSIDE, "client": ("172.18.0.1", 40000)}
    assert not is_near(asked, Settings(published_on="127.0.0.1"))


@pytest.mark.usefixtures("contained")
def test_in_a_container_over_http(make_settings: MakeSettings) -> None:
    with serve(make_settings(published_on="127.0.0.1")) as client:
        for address, status in (("172.18.0.1", 200), ("172.18.0.4", 401)):
            there = TestClient(client.app, base_url="http://127.0.0.1:8000", client=(address, 40000))
            there.app_state.update(client.app_state)
            assert there.get("/v1/images").status_code == status
            assert there.get("/metrics").status_code == status
            assert there.post("/v1/segment", content=encoded(picture())).status_code == status
            assert there.get("/readyz").status_code == 200


def test_what_is_free_here_is_not_free_through_a_proxy(client: TestClient) -> None:
    inner: Any = client.app
    app: Any = ProxyHeadersMiddleware(inner, trusted_hosts="*")
    with TestClient(app, base_url="http://127.0.0.1:8000", client=("127.0.0.1", 50000)) as proxied:
        for path in ("/metrics", "/v1/images"):
            assert proxied.get(path).status_code == 200
            assert proxied.get(path, headers={"X-Forwarded-For": "203.0.113.7"}).status_code == 401


@pytest.mark.parametrize(
    ("host", "ours"),
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
def test_names_that_pages_may_point_here(host: str, ours: bool) -> None:
    settings = Settings(allowed_hosts=("mine.example.com", "Other.example.com"))
    if ours:
        check_host(scope(host=host), settings)
    else:
        with pytest.raises(ForeignPage, match="MASKLOOP_ALLOWED_HOSTS"):
            check_host(scope(host=host), settings)


@given(st.text(st.characters(max_codepoint=255), max_size=30))
def test_any_host_is_ours_or_not(host: str) -> None:
    try:
        check_host(scope(host=host), HERE)
    except ForeignPage:
        assert "." in host


SELF = {"host": "127.0.0.1:8000"}
EVIL = "https://evil.example.com"


@pytest.mark.parametrize(
    ("method", "headers", "ours"),
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
def test_pages_that_ask(method: str, headers: dict[str, str], ours: bool) -> None:
    settings = Settings(cors_origins=("https://label.example.com",))
    if ours:
        check_origin(scope(method, **SELF, **headers), settings)
    else:
        with pytest.raises(ForeignPage, match="MASKLOOP_CORS_ORIGINS"):
            check_origin(scope(method, **SELF, **headers), settings)


def test_over_http(client: TestClient) -> None:
    image = encoded(picture())
    assert client.post("/v1/images", content=image, headers={"Origin": EVIL}).status_code == 403
    rebound = client.get("/v1/images", headers={"Host": "evil.example.com"})
    assert (rebound.status_code, rebound.json()["type"]) == (403, "urn:maskloop:problem:foreign-page")
    assert client.get("/v1/images").json()["unlabelled"] == 0
    assert client.post("/v1/images", content=image).status_code == 201


def test_a_key_says_more_than_a_browser(make_settings: MakeSettings) -> None:
    headers = {"Origin": EVIL, "Host": "maskloop.example.com", "X-API-Key": "k" * 40}
    with serve(make_settings(api_key="k" * 40)) as client:
        assert client.post("/v1/images", content=encoded(picture()), headers=headers).status_code == 201
