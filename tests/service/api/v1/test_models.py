"""`/v1/models` over HTTP."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from fastapi.testclient import TestClient

from service.state import State
from tests.service.conftest import MakeSettings, encoded, eventually, read, serve
from tests.service.tiny_bundle import COLORS, nearest, picture, sha256, write_manifest, zipped

URL = "/v1/models"
LONG_WAIT = {"wait_s": 60}
FIRST, SECOND = "20260101T000000-aaaaaaaa", "20260102T000000-bbbbbbbb"


def test_list_shows_the_serving_model(client: TestClient) -> None:
    body = client.get(URL).json()
    assert (body["serving"], body["desired"], body["error"]) == (FIRST, FIRST, None)
    (model,) = body["models"]
    assert model["serving"]
    assert model["desired"]
    assert (model["state"], model["miou"], model["parent"]) == ("ready", 0.5, None)


def test_version_shows_its_classes(client: TestClient) -> None:
    body = client.get(f"{URL}/{FIRST}").json()
    assert body["classes"][1] == {"id": 1, "name": "green", "color": [0, 255, 0], "own_name": "green", "listed": 1}
    assert body["ignore_index"] == 255


def test_uploaded_model_can_be_requested_and_activated(client: TestClient, other_bundle: Path) -> None:
    image = picture()
    uploaded = client.post(URL, files={"file": ("bundle.zip", zipped(other_bundle, inside="b/"))})
    assert uploaded.status_code == 201
    assert not uploaded.json()["serving"]
    requested = client.post("/v1/segment", params={"model": SECOND}, content=encoded(image))
    assert requested.headers["x-model-version"] == SECOND
    np.testing.assert_array_equal(read(requested.content), nearest(image, COLORS[::-1]))
    assert client.post("/v1/segment", content=encoded(image)).headers["x-model-version"] == FIRST
    activated = client.post(f"{URL}/{SECOND}/activate", params=LONG_WAIT)
    assert (activated.status_code, activated.json()["serving"]) == (200, True)
    assert client.post("/v1/segment", content=encoded(image)).headers["x-model-version"] == SECOND
    assert client.post(f"{URL}/rollback", params=LONG_WAIT).json()["version"] == FIRST
    assert client.post("/v1/segment", content=encoded(image)).headers["x-model-version"] == FIRST
    assert client.post(URL, content=zipped(other_bundle)).status_code == 201


def test_activation_that_takes_longer_than_the_wait_is_answered_with_a_place_to_look(
    client: TestClient, other_bundle: Path
) -> None:
    client.post(URL, content=zipped(other_bundle))
    answer = client.post(f"{URL}/{SECOND}/activate", params={"wait_s": 0})
    assert (answer.status_code, answer.json()["serving"]) == (202, False)
    place = answer.headers["location"]
    assert client.get(place).json()["desired"]
    eventually(lambda: client.get(place).json()["serving"])


def test_activation_of_a_version_that_does_not_load_is_refused(client: TestClient, other_bundle: Path) -> None:
    """It was valid when it was uploaded."""
    client.post(URL, content=zipped(other_bundle))
    state: State = client.app_state["maskloop"]
    (state.models.bundle(SECOND).folder / "model.onnx").write_bytes(b"damaged")
    refused = client.post(f"{URL}/{SECOND}/activate", params=LONG_WAIT)
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:maskloop:problem:model-not-servable")
    assert "the model before still serves: " in refused.json()["detail"]
    assert client.get(URL).json()["serving"] == FIRST


def test_invalid_bundles_are_rejected_and_leave_no_files(client: TestClient, other_bundle: Path) -> None:
    state: State = client.app_state["maskloop"]
    with (other_bundle / "model.onnx").open("ab") as handle:
        handle.write(b"!")
    changed = zipped(other_bundle)
    write_manifest(other_bundle, version=SECOND)
    no_graph = zipped(other_bundle)
    for content, message in (
        (b"no zip", "is the text 'no zip'"),
        (b"\0zip", "not a readable zip"),
        (changed, "does not match its sha256"),
        (no_graph, "does not load"),
    ):
        response = client.post(URL, content=content)
        assert response.status_code == 422
        assert response.json()["type"] == "urn:maskloop:problem:bundle-invalid"
        assert message in response.json()["detail"]
    assert [p.name for p in (state.settings.data_dir / "models").iterdir()] == [FIRST]


def test_bundle_whose_probe_fails_is_rejected(client: TestClient, bundle: Path, other_bundle: Path) -> None:
    (other_bundle / "model.onnx").write_bytes((bundle / "model.onnx").read_bytes())
    write_manifest(other_bundle, version=SECOND)
    response = client.post(URL, content=zipped(other_bundle))
    assert response.status_code == 422
    assert "probe failed" in response.json()["detail"]
    assert sha256(bundle / "model.onnx") == sha256(other_bundle / "model.onnx")


def test_unknown_versions_get_404_and_empty_rollback_409(client: TestClient) -> None:
    for response in (
        client.get(f"{URL}/nothing"),
        client.post(f"{URL}/nothing/activate"),
        client.post("/v1/segment", params={"model": "nothing"}, content=encoded(picture())),
    ):
        assert response.status_code == 404
        assert response.json()["type"] == "urn:maskloop:problem:model-not-found"
    rollback = client.post(f"{URL}/rollback")
    assert rollback.status_code == 409
    assert rollback.json()["type"] == "urn:maskloop:problem:nothing-to-roll-back"


def test_bundle_above_the_limit_gets_413(make_settings: MakeSettings, other_bundle: Path) -> None:
    with serve(make_settings(max_bundle_bytes=1000)) as client:
        compressed = client.post(URL, content=zipped(other_bundle))
        assert compressed.status_code == 413
        large = client.post(URL, content=bytes(200_000))
        assert large.json()["type"] == "urn:maskloop:problem:body-too-large"
