"""NUL characters in paths and queries are rejected with a clear error before they reach the database."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient
from sqlalchemy import event

from service.api.app import create_app
from service.settings import Settings
from service.state import State


@pytest.fixture
def strict(client: TestClient) -> TestClient:
    """A service whose database rejects NUL in values, as PostgreSQL's driver does."""
    state: State = client.app_state["maskloop"]

    def reject_nul(_connection: Any, _cursor: Any, _statement: str, parameters: Any, *_: Any) -> None:
        if "\\x00" in repr(parameters):
            raise ValueError("PostgreSQL text fields cannot contain NUL (0x00) bytes")

    event.listen(state.database.engine, "before_cursor_execute", reject_nul)
    return client


def templates() -> list[tuple[str, str]]:
    """Every method of every path with a parameter."""
    routes = [route for route in iter_route_contexts(create_app(Settings()).routes) if route.path and "{" in route.path]
    return sorted({(method, str(route.path)) for route in routes for method in route.methods or ()})


def test_nul_in_any_path_parameter_gets_404(strict: TestClient) -> None:
    assert len(templates()) > 20
    for method, template in templates():
        for id_ in ("%00", "a%00b"):
            path = "/".join(id_ if part.startswith("{") else part for part in template.split("/"))
            response = strict.request(method, path)
            assert response.status_code == 404, (method, path)
            message = response.json()["error" if path.startswith("/v2") else "detail"]
            assert "NUL character" in message


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/segment?model=%00"),
        ("POST", "/v1/segment?model=x%00y&classes=red"),
        ("POST", "/v1/segment/batch?model=%00"),
        ("GET", "/v1/images?cursor=1-%00"),
        ("GET", "/v1/images?%00=1"),
    ],
)
def test_nul_in_a_query_gets_422(strict: TestClient, method: str, path: str) -> None:
    response = strict.request(method, path, content=b"x" if method == "POST" else None)
    assert (response.status_code, response.json()["type"]) == (422, "urn:maskloop:problem:invalid-request")
    assert response.headers["Content-Type"] == "application/problem+json"
    assert "NUL character" in response.json()["detail"]
    assert response.json()["errors"][0]["field"] == "query"


def test_escaped_percent_sign_is_not_nul(strict: TestClient) -> None:
    answer = strict.get("/v1/images?cursor=1-%2500")
    assert (answer.status_code, answer.json()["detail"]) == (400, "The cursor is invalid: start without a cursor.")
