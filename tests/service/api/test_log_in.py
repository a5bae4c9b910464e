"""Browser login: `/?key=KEY` sets a cookie, which authenticates requests of the service's own pages only."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from structlog.testing import capture_logs

from tests.service.conftest import MakeSettings, encoded, serve
from tests.service.otlp_receiver import receiving
from tests.service.tiny_bundle import picture

KEY = "k" * 40
ORIGIN = "http://testserver"
CANCEL = "/v1/runs/none/cancel"


@pytest.fixture
def browser(make_settings: MakeSettings) -> Iterator[TestClient]:
    """A client that keeps cookies, and has logged in."""
    with serve(make_settings(api_key=KEY)) as client:
        assert client.get("/", params={"key": KEY}).status_code == 200
        yield client


def test_valid_key_sets_a_cookie_and_leaves_the_address_bar(make_settings: MakeSettings) -> None:
    with serve(make_settings(api_key=KEY)) as client:
        answer = client.get("/", params={"key": KEY}, follow_redirects=False)
        assert (answer.status_code, answer.headers["Location"]) == (303, "/")
        name, *attributes = answer.headers["Set-Cookie"].split("; ")
        assert name == f"maskloop_key={KEY}"
        # No Max-Age and no Expires: a session cookie.
        assert {each.lower() for each in attributes} == {"httponly", "samesite=strict", "path=/"}
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cache-Control"] == "no-store"
        page = client.get("/")
        assert page.url.path == "/docs"
        assert KEY not in str(page.url)
        secure = client.get("https://testserver/", params={"key": KEY}, follow_redirects=False)
        assert "secure" in secure.headers["Set-Cookie"].lower()


def test_invalid_key_gets_401_and_is_rate_limited(make_settings: MakeSettings) -> None:
    with serve(make_settings(api_key=KEY, failed_keys_per_minute=2)) as client:
        answers = [client.get("/", params={"key": "x"}, follow_redirects=False) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [401, 401, 429]
    assert answers[0].json()["type"] == "urn:maskloop:problem:key-invalid"
    assert 'error="invalid_token"' in answers[0].headers["WWW-Authenticate"]
    assert all("Set-Cookie" not in answer.headers for answer in answers)


def test_cookie_authenticates(browser: TestClient) -> None:
    assert browser.get("/v1/runs").status_code == 200
    assert browser.post(CANCEL, headers={"Origin": ORIGIN}).status_code == 404
    assert browser.post(CANCEL, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 404
    browser.cookies.clear()
    assert browser.get("/v1/runs").status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example.com"},
        {"Origin": "http://testserver:9000"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        # Another port of the same host: the browser attaches the cookie in spite of SameSite=Strict.
        {"Sec-Fetch-Site": "same-site", "Origin": ORIGIN},
    ],
)
def test_cookie_is_refused_for_changes_from_other_pages(browser: TestClient, headers: dict[str, str]) -> None:
    for method, path in (("POST", CANCEL), ("DELETE", "/v1/images/none"), ("PUT", "/v1/images/none/mask")):
        refused = browser.request(method, path, headers=headers)
        assert (refused.status_code, refused.json()["type"]) == (403, "urn:maskloop:problem:foreign-page")
    # A key in a header is sent on purpose.
    assert browser.post(CANCEL, headers=headers | {"X-API-Key": KEY}).status_code == 404


def test_cookie_also_works_under_a_domain_name(browser: TestClient) -> None:
    """A browser sends the cookie to the host that set it only, so a name that is rebound to this machine has none."""
    headers = {"Host": "seg.example.com", "Origin": "http://seg.example.com"}
    assert browser.post(CANCEL, headers=headers).status_code == 404


def test_cors_origins_do_not_apply_to_the_cookie(make_settings: MakeSettings) -> None:
    with serve(make_settings(api_key=KEY, cors_origins="*")) as client:
        client.get("/", params={"key": KEY})
        assert client.post(CANCEL, headers={"Origin": "http://testserver:9000"}).status_code == 403


def test_header_takes_precedence_over_the_cookie(browser: TestClient) -> None:
    assert browser.get("/v1/runs", headers={"X-API-Key": "x"}).status_code == 401
    browser.cookies.set("maskloop_key", "x")
    assert browser.get("/v1/runs", headers={"X-API-Key": KEY}).status_code == 200


def test_invalid_cookie_is_deleted(browser: TestClient) -> None:
    browser.cookies.clear()
    browser.cookies.set("maskloop_key", "x", domain="testserver.local", path="/")
    image = encoded(picture())
    refused = browser.post("/v1/segment", content=image)
    assert (refused.status_code, refused.json()["type"]) == (401, "urn:maskloop:problem:key-invalid")
    # The next request is anonymous.
    assert browser.post("/v1/segment", content=image).status_code == 200


def test_configured_key_may_contain_any_character(make_settings: MakeSettings) -> None:
    key = 'a;b,c="d%20é\N{CYRILLIC SMALL LETTER ZHE}+&' + "x" * 20
    with serve(make_settings(api_key=key)) as client:
        assert client.get("/", params={"key": key}).status_code == 200
        assert client.get("/v1/runs").status_code == 200


def test_key_is_neither_logged_nor_traced(make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving() as receiver, capture_logs() as lines:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        with serve(make_settings(api_key=KEY)) as client:
            client.get("/", params={"key": KEY}, follow_redirects=False)
            client.get("/", params={"key": KEY + "x"}, follow_redirects=False)
            client.get("/v1/runs")
    logged = [(line["path"], line["status"]) for line in lines if line["event"] == "request"]
    assert logged == [("/", 303), ("/", 401), ("/v1/runs", 200)]
    assert KEY not in repr(lines)
    assert [span.name for span in receiver.spans] == ["GET /v1/runs"]
    assert KEY not in repr(receiver.spans)
