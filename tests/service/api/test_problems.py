"""Errors as problem documents, limits on bodies, readiness, and negotiation of the media type."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.api.app import create_app
from service.api.v1.render import negotiate
from service.errors import MaskloopError, NotAcceptable
from service.state import State
from tests.service.conftest import MakeSettings, encoded, eventually, serve
from tests.service.tiny_bundle import picture


def subclasses(of: type[MaskloopError]) -> set[type[MaskloopError]]:
    return {of}.union(*(subclasses(child) for child in of.__subclasses__()))


def test_slugs_are_unique() -> None:
    import service.errors

    # Errors defined elsewhere, such as those of the demo, never reach HTTP.
    ours = {error for error in subclasses(MaskloopError) if error.__module__ == service.errors.__name__}
    # For clients it is the same problem, with another remedy.
    errors = ours - {service.errors.DatabaseUnwritable}
    assert len({error.slug for error in errors}) == len(errors)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("GET", "/nothing", 404),
        ("GET", "/v1/segment", 405),
        ("PATCH", "/v1/images", 405),
        ("POST", "/livez", 405),
    ],
)
def test_http_errors_are_problem_documents(client: TestClient, method: str, path: str, status: int) -> None:
    response = client.request(method, path)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == status


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/images", "GET, POST"),
        ("/v1/images/x", "DELETE, GET"),
        ("/v1/images/x/mask", "GET, PUT"),
        ("/v2/models/x/infer", "POST"),
        ("/docs/swagger/x.js", "GET, HEAD"),
    ],
)
def test_405_lists_all_methods_of_the_path(client: TestClient, path: str, allowed: str) -> None:
    response = client.patch(path)
    assert (response.status_code, response.headers["allow"]) == (405, allowed)


def test_unexpected_error_is_a_problem_without_details(client: TestClient) -> None:
    app = client.app
    assert isinstance(app, FastAPI)

    @app.get("/v1/broken")
    def broken() -> None:
        raise RuntimeError("the password is 1234")

    response = client.get("/v1/broken")
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert "1234" not in response.text


@pytest.mark.parametrize("path", ["/v1/segment", "/v1/images"])
@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("form", [True, False])
def test_body_above_the_limit_gets_413(make_settings: MakeSettings, path: str, declared: bool, form: bool) -> None:
    def body() -> Iterator[bytes]:
        if form:
            yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(1000):
            yield bytes(1000)

    headers = {"Content-Type": "multipart/form-data; boundary=x"} if form else {}
    if declared:
        headers["Content-Length"] = "1000000"
    with serve(make_settings(max_image_bytes=1000)) as client:
        response = client.post(path, content=body(), headers=headers)
        assert response.status_code == 413
        assert response.json()["type"] == "urn:maskloop:problem:body-too-large"
        assert client.post("/v1/segment", content=b"x").status_code == 415


def test_pixels_above_the_limit_get_413(make_settings: MakeSettings) -> None:
    with serve(make_settings(max_image_pixels=1000)) as client:
        for path in ("/v1/segment", "/v1/images"):
            response = client.post(path, content=encoded(picture(40, 30)))
            assert response.status_code == 413
            assert "MASKLOOP_MAX_IMAGE_PIXELS" in response.json()["detail"]


def test_service_without_a_model_is_live_but_not_ready(make_settings: MakeSettings, tmp_path: object) -> None:
    with TestClient(create_app(make_settings())) as client:
        state: State = client.app_state["maskloop"]
        state.active_model.stop()
        eventually(lambda: not state.active_model._thread or not state.active_model._thread.is_alive())
        state.active_model._current = None
        assert client.get("/livez").status_code == 200
        for response in (client.get("/readyz"), client.post("/v1/segment", content=encoded(picture()))):
            assert response.status_code == 503
            assert response.headers["retry-after"] == "2"
            assert response.json()["type"] == "urn:maskloop:problem:no-model"


def test_root_redirects_to_the_docs(client: TestClient) -> None:
    assert client.get("/", follow_redirects=False).headers["location"] == "/docs"
    assert client.get("/docs").status_code == 200


def test_accept_header_is_negotiated() -> None:
    offers = ["image/png", "application/json"]
    assert negotiate(None, offers) == "image/png"
    assert negotiate("", offers) == "image/png"
    assert negotiate("APPLICATION/JSON;Q=1", offers) == "application/json"
    assert negotiate("*/*;q=0.1, application/json;q=0.2", offers) == "application/json"
    with pytest.raises(NotAcceptable):
        negotiate("*/*;q=nonsense", offers)
