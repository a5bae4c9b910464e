"""Security headers, CORS, and error responses without internals."""

from __future__ import annotations

import re

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.service.conftest import MakeSettings, encoded, serve
from tests.service.tiny_bundle import picture

PAGE = "https://label.example.com"


@pytest.mark.parametrize(
    "path", ["/livez", "/v1/models", "/v1/nothing", "/v1/segment", "/metrics", "/openapi.json", "/broken"]
)
def test_every_response_has_security_headers(client: TestClient, path: str) -> None:
    assert isinstance(client.app, FastAPI)

    @client.app.get("/broken")
    def broken() -> None:
        raise RuntimeError

    headers = client.get(path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    assert "Server" not in headers


def test_no_header_is_sent_twice(client: TestClient) -> None:
    image_id = client.post("/v1/images", content=encoded(picture())).json()["id"]
    names = [name.lower() for name, _ in client.get(f"/v1/images/{image_id}/content").headers.multi_items()]
    assert len(names) == len(set(names))


def test_docs_page_loads_only_its_own_files(client: TestClient) -> None:
    page = client.get("/docs")
    assert page.headers["Content-Type"].startswith("text/html")
    assert "script-src 'self';" in page.headers["Content-Security-Policy"]
    assert "<script>" not in page.text, "the policy blocks inline scripts"
    loaded = re.findall(r'(?:src|href)="(?!data:)([^"]*)"', page.text)
    assert len(loaded) == 3
    for address in loaded:
        assert "//" not in address
        # Resolved relative to /docs, as in a browser.
        response = client.get(f"/{address}")
        assert response.status_code == 200
        assert "max-age" in response.headers["Cache-Control"]
    assert client.get("/redoc").status_code == 404
    for outside in ("/docs/page/../../settings.py", "/docs/page/%2e%2e/%2e%2e/settings.py"):
        assert client.get(outside).status_code == 404


@pytest.fixture
def broken(client: TestClient) -> TestClient:
    app = client.app
    assert isinstance(app, FastAPI)

    @app.get("/v1/broken")
    def fault(secret: str = "") -> None:
        raise RuntimeError(f"the password is 1234 {secret} in /var/lib/maskloop/secret.txt")

    @app.get("/v1/broken-later")
    async def fault_later() -> None:
        raise ExceptionGroup("outer", [ValueError("the password is 1234")])

    return client


@pytest.mark.parametrize("path", ["/v1/broken", "/v1/broken?secret=x", "/v1/broken-later"])
def test_no_traceback_reaches_a_client(broken: TestClient, path: str) -> None:
    response = broken.get(path, headers={"Accept": "text/html"})
    assert response.status_code == 500
    assert response.headers["Content-Type"] == "application/problem+json"
    for inside in ("1234", "Traceback", "RuntimeError", "ExceptionGroup", ".py", "/var/lib"):
        assert inside not in response.text
        assert inside not in repr(response.headers)


def test_other_origins_get_no_cors_headers(client: TestClient) -> None:
    headers = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
    responses = (client.options("/v1/segment", headers=headers), client.get("/v1/models", headers={"Origin": PAGE}))
    for response in responses:
        assert not [name for name in response.headers if name.lower().startswith("access-control")]


def test_configured_origins_get_cors_headers(make_settings: MakeSettings) -> None:
    with serve(make_settings(cors_origins=PAGE, api_key="k" * 40, anonymous_scopes="")) as client:
        request = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
        preflight_headers = {"Access-Control-Request-Headers": "authorization,content-type,x-api-key"}
        preflight = client.options("/v1/segment", headers=request | preflight_headers)
        # Browsers send no key with a preflight.
        assert preflight.status_code == 200
        assert preflight.headers["Access-Control-Allow-Origin"] == PAGE
        assert "authorization" in preflight.headers["Access-Control-Allow-Headers"]
        rejected = client.get("/v1/models", headers={"Origin": PAGE})
        assert (rejected.status_code, rejected.headers["Access-Control-Allow-Origin"]) == (401, PAGE)
        assert "X-Model-Version" in rejected.headers["Access-Control-Expose-Headers"]
        assert "Access-Control-Allow-Credentials" not in rejected.headers
        other = client.options("/v1/segment", headers=request | {"Origin": "https://evil.example.com"})
        assert "Access-Control-Allow-Origin" not in other.headers
