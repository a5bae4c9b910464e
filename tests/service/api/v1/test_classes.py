"""`/v1/classes`: the list, its changes, and what becomes of labels and models."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from service.keys.key_store import KeyStore
from service.state import State
from tests.service.conftest import encoded, eventually, read
from tests.service.tiny_bundle import COLORS, NAMES, nearest, picture, write_bundle, zipped

WEEDS = ("weed", "crop", "soil")


@pytest.fixture
def image_id(client: TestClient) -> str:
    return str(client.post("/v1/images", content=encoded(picture())).json()["id"])


def put(client: TestClient, names: list[Any], derived_from: int = 1, **fates: Any) -> dict[str, Any]:
    classes = [name if isinstance(name, dict) else {"name": name} for name in names]
    body = {"derived_from": derived_from, "classes": classes} | fates
    response = client.put("/v1/classes", json=body)
    assert response.status_code == 200, response.text
    return dict(response.json())


def label(client: TestClient, image_id: str, ids: Any, **query: Any) -> Any:
    data = encoded(np.asarray(ids, np.uint8))
    return client.put(f"/v1/images/{image_id}/mask", content=data, params={"partial": True} | query)


def names_of(answer: dict[str, Any]) -> list[str]:
    return [each["name"] for each in answer["classes"]]


def test_first_list_has_the_classes_of_the_active_model(client: TestClient) -> None:
    response = client.get("/v1/classes")
    answer = response.json()
    assert response.headers["ETag"] == '"1"'
    assert (answer["version"], answer["model"], answer["ignore_index"]) == (1, "20260101T000000-aaaaaaaa", 255)
    assert answer["classes"][1] == {
        "id": 1,
        "identity": 2,
        "name": "green",
        "color": [0, 255, 0],
        "labels": 0,
        "pixels": 0,
    }
    assert names_of(answer) == list(NAMES)


def test_list_must_be_derived_from_the_present_version(client: TestClient) -> None:
    classes = [{"name": name} for name in NAMES]
    assert client.put("/v1/classes", json={"classes": classes}).status_code == 400
    response = client.put("/v1/classes", json={"classes": classes}, headers={"If-Match": '"7"'})
    assert (response.status_code, response.json()["type"]) == (412, "urn:maskloop:problem:classes-changed")
    assert "the present one is 1: GET /v1/classes" in response.json()["detail"]
    response = client.put("/v1/classes", json={"classes": classes}, headers={"If-Match": '"1"'})
    assert (response.status_code, response.headers["ETag"]) == (200, '"2"')
    response = client.put("/v1/classes", json={"classes": classes, "derived_from": 2}, headers={"If-Match": '"1"'})
    assert response.status_code == 400
    response = client.put("/v1/classes", json={"classes": classes[1:], "derived_from": 2})
    assert (response.status_code, response.json()["type"]) == (422, "urn:maskloop:problem:classes-invalid")
    assert names_of(client.get("/v1/classes", params={"version": 1}).json()) == list(NAMES)
    assert client.get("/v1/classes", params={"version": 9}).status_code == 404


def test_list_is_changed_with_the_scope_admin_and_read_with_any_key(client: TestClient) -> None:
    state: State = client.app_state["maskloop"]
    key = KeyStore(state.database).create("reader", ("train", "contribute"))[1]
    client.headers["X-API-Key"] = key
    # The process reads the keys from time to time.
    eventually(lambda: client.get("/v1/classes").status_code == 200)
    body = {"derived_from": 1, "classes": [{"name": name} for name in NAMES]}
    assert client.put("/v1/classes", json=body).status_code == 403


def test_labels_follow_their_classes_and_what_has_no_counterpart_is_ignored_and_counted(
    client: TestClient, image_id: str
) -> None:
    ids = nearest(picture(), COLORS)
    assert label(client, image_id, ids, split="labelled").json()["classes_version"] == 1
    counted = client.get("/v1/classes").json()["classes"]
    assert [each["pixels"] for each in counted] == np.bincount(ids.ravel(), minlength=5).tolist()
    changed = put(
        client,
        ["dark", "tree", "rose", "green"],
        renamed={"red": "rose"},
        merged={"blue": "dark", "black": "dark"},
        retired=["white"],
    )
    response = client.get(f"/v1/images/{image_id}/mask")
    assert response.headers["X-Classes-Version"] == "2"
    np.testing.assert_array_equal(read(response.content), np.array([2, 3, 0, 0, 255])[ids])
    dark = int((ids == 2).sum() + (ids == 3).sum())
    assert (changed["classes"][0]["pixels"], changed["classes"][1]["labels"], changed["key_name"]) == (
        dark,
        0,
        "configured",
    )
    assert changed["set_aside"] == [
        {"version": 1, "identity": 5, "name": "white", "labels": 1, "pixels": int((ids == 4).sum())}
    ]
    assert changed["uncounted_labels"] == 0
    # A new label has the ids of the present list, unless it names another one.
    ones = np.ones((30, 40))
    assert label(client, image_id, ones, classes_version=1).json()["classes_version"] == 1
    assert read(client.get(f"/v1/images/{image_id}/mask").content).max() == 3
    assert label(client, image_id, ones).json()["classes_version"] == 2
    counts = client.get("/v1/classes").json()
    assert ([each["pixels"] for each in counts["classes"]], counts["set_aside"]) == ([0, 1200, 0, 0], [])
    refused = label(client, image_id, 4 * ones)
    assert (refused.status_code, refused.json()["type"]) == (422, "urn:maskloop:problem:mask-invalid")
    assert "the classes are 0..3" in refused.json()["detail"]
    assert label(client, image_id, ones, classes_version=3).status_code == 404
    client.delete(f"/v1/images/{image_id}")
    assert client.get("/v1/classes").json()["classes"][1]["pixels"] == 0


def test_model_with_other_classes_does_not_change_what_labels_mean(
    client: TestClient, image_id: str, tmp_path: Path
) -> None:
    """Before the class list, id 1 of a label became id 1 of whatever model was activated later."""
    ids = nearest(picture(), COLORS)
    label(client, image_id, ids)
    classes = [{"id": i, "name": name, "color": [i, 9, 9]} for i, name in enumerate(WEEDS)]
    weeds = write_bundle(tmp_path / "weeds", version="weeds", colors=COLORS[:3], classes=classes)
    assert client.post("/v1/models", content=zipped(weeds)).status_code == 201
    client.post("/v1/models/weeds/activate")
    eventually(lambda: client.get("/v1/models").json()["serving"] == "weeds")
    np.testing.assert_array_equal(read(client.get(f"/v1/images/{image_id}/mask").content), ids)
    answer = client.get("/v1/classes").json()
    assert (answer["version"], names_of(answer), answer["set_aside"]) == (1, list(NAMES), [])
    # The masks of the model have its own classes.
    shown = client.post("/v1/segment", content=encoded(picture()), headers={"Accept": "application/json"}).json()
    assert {each["name"] for each in shown["classes"]} <= set(WEEDS)
    assert [each["listed"] for each in client.get("/v1/models/weeds").json()["classes"]] == [None, None, None]


def test_names_and_colours_of_models_change_at_once(client: TestClient) -> None:
    data, accept = encoded(picture()), {"Accept": "application/json"}
    put(
        client,
        [{"name": "dark", "color": [1, 2, 3]}, "rose", "green", "white"],
        renamed={"red": "rose"},
        merged={"blue": "dark", "black": "dark"},
    )
    shown = client.post("/v1/segment", content=data, headers=accept).json()
    assert [(each["id"], each["name"]) for each in shown["classes"]] == [
        (0, "rose"),
        (1, "green"),
        (2, "dark"),
        (3, "dark"),
        (4, "white"),
    ]
    # Ids in masks are those of the model; a name means all of its classes.
    picked = client.post("/v1/segment", content=data, params={"classes": "dark"})
    mask = Image.open(io.BytesIO(picked.content))
    assert np.unique(np.asarray(mask)).tolist() == [2, 3, 255]
    palette = mask.getpalette()
    assert palette is not None
    assert palette[6:12] == [1, 2, 3, 1, 2, 3]
    (model,) = client.get("/v1/models").json()["models"]
    assert model["classes_version"] == 1
    detail = client.get(f"/v1/models/{model['version']}").json()["classes"]
    assert detail[3] == {"id": 3, "name": "dark", "color": [1, 2, 3], "own_name": "black", "listed": 0}
    config = client.get("/v2/models/seg/config").json()["parameters"]["classes"]["string_value"]
    assert json.loads(config)[3] == {"id": 3, "name": "dark", "color": [1, 2, 3]}
    # A class that ended keeps its own name, which is told from that of a new class.
    put(client, ["dark", "rose", "green"], 2, retired=["white"])
    put(client, ["dark", "rose", "green", "white"], 3)
    shown = client.post("/v1/segment", content=data, headers=accept).json()
    assert (shown["classes"][4]["name"], shown["classes"][4]["color"]) == ("white (not listed)", [255, 255, 255])
