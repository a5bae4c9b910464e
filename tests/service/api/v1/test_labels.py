"""Labels over HTTP: as JSON, as accepted predictions, and what the answers say about them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from tests.service.conftest import MakeSettings, encoded, read, serve
from tests.service.tiny_bundle import COLORS, NAMES, nearest, picture, write_bundle

URL = "/v1/images"
FIRST, SECOND = "20260101T000000-aaaaaaaa", "20260102T000000-bbbbbbbb"
IMAGE = picture()
IDS = nearest(IMAGE, COLORS)


@pytest.fixture
def client(make_settings: MakeSettings, tmp_path: Any) -> Iterator[TestClient]:
    """A service whose second model has the classes in the opposite order."""
    other = write_bundle(tmp_path / "reversed", version=SECOND, colors=COLORS[::-1])
    with serve(make_settings()) as ready:
        ready.app_state["maskloop"].models.import_folder(other)
        yield ready


def test_label_as_json_answers_with_pixels_by_class(client: TestClient) -> None:
    """What /v1/segment answers can be sent back, corrected."""
    image_id = client.post(URL, content=encoded(IMAGE)).json()["id"]
    url = f"{URL}/{image_id}/mask"
    found = client.post("/v1/segment", content=encoded(IMAGE), headers={"Accept": "application/json"}).json()
    regions = [{"class": each["name"], "segmentation": each["rle"]} for each in found["classes"]]
    corner = {"class": "white", "segmentation": [[0, 0, 8, 0, 8, 5, 0, 5]]}
    put = client.put(url, json={"regions": [*regions, corner]}, params={"group": "walk"})
    assert put.status_code == 200
    expected = IDS.copy()
    expected[:5, :8] = NAMES.index("white")
    np.testing.assert_array_equal(read(client.get(url).content), expected)
    assert (put.json()["group"], put.json()["accepted_from"]) == ("walk", None)
    label = put.json()["label"]
    counts = np.bincount(expected.ravel(), minlength=5).tolist()
    assert label["classes"] == [
        {"id": i, "name": name, "pixels": count, "fraction": round(count / 1200, 6)}
        for i, (name, count) in enumerate(zip(NAMES, counts, strict=True))
        if count
    ]
    assert (label["unlabelled_pixels"], label["doubt"]) == (0, None)
    refused = client.put(url, json={"regions": [corner, {**corner, "class": "wite"}]})
    assert (refused.status_code, refused.json()["type"]) == (422, "urn:maskloop:problem:mask-invalid")
    assert "`regions[1]` has the class 'wite'" in refused.json()["detail"]
    assert "did you mean 'white'?" in refused.json()["detail"]
    form = client.put(url, files={"file": b'{"regions": [], "rest": "red"}'}).json()["label"]
    assert [each["name"] for each in form["classes"]] == ["red"]
    half = client.put(url, json={"regions": [corner]}).json()["label"]
    assert (half["unlabelled_pixels"], half["unlabelled_fraction"]) == (1160, round(1160 / 1200, 6))


def test_names_are_those_of_the_version_that_the_client_knows(client: TestClient) -> None:
    url = f"{URL}/{client.post(URL, content=encoded(IMAGE)).json()['id']}/mask"
    classes = [{"name": name} for name in ("rot", *NAMES[1:])]
    changed = client.put("/v1/classes", json={"derived_from": 1, "classes": classes, "renamed": {"red": "rot"}})
    assert changed.status_code == 200, changed.text
    for name, version, status in (("red", 1, 200), ("rot", 2, 200), ("rot", "", 200), ("red", "", 422)):
        answer = client.put(
            url, json={"regions": [], "rest": name}, params={"classes_version": version} if version else {}
        )
        assert answer.status_code == status, (name, version)
    assert (read(client.get(url).content) == 0).all()


def test_odd_png_is_stored_with_a_doubt(client: TestClient) -> None:
    url = f"{URL}/{client.post(URL, content=encoded(IMAGE)).json()['id']}/mask"
    label = client.put(url, content=encoded(np.zeros((30, 40), np.uint8))).json()["label"]
    assert "Every pixel is 'red'" in label["doubt"]


def test_prediction_becomes_the_label(client: TestClient) -> None:
    image_id = client.post(URL, content=encoded(IMAGE)).json()["id"]
    url = f"{URL}/{image_id}/mask"
    accepted = client.post(f"{url}:accept", params={"group": "walk"})
    assert accepted.status_code == 200, accepted.text
    body = accepted.json()
    assert (body["split"], body["accepted_from"], body["group"]) == ("labelled", FIRST, "walk")
    assert (body["below_confidence"], body["without_class"]) == (0, 0)
    assert sum(each["pixels"] for each in body["label"]["classes"]) == 1200
    np.testing.assert_array_equal(read(client.get(url).content), IDS)
    listed = client.get(URL).json()
    assert (listed["labelled"], listed["accepted"], listed["val"]) == (1, 1, 0)
    # The same classes in another order: the label has the ids of the list.
    other = client.post(f"{url}:accept", params={"model": SECOND}).json()
    assert other["accepted_from"] == SECOND
    np.testing.assert_array_equal(read(client.get(url).content), IDS)
    assert client.get(f"{URL}/{image_id}").json()["accepted_from"] == SECOND


def test_prediction_is_refused_as_val_label_and_over_a_drawn_one(client: TestClient) -> None:
    url = f"{URL}/{client.post(URL, content=encoded(IMAGE)).json()['id']}/mask"
    client.put(url, content=encoded(IDS))
    cases: list[tuple[str, dict[str, Any], int, str]] = [
        (url, {}, 409, "label-exists"),
        (url, {"replace": True, "split": "val"}, 409, "label-not-drawn"),
        (url, {"model": "nothing"}, 404, "model-not-found"),
        (f"{URL}/{'0' * 64}/mask", {}, 404, "image-not-found"),
    ]
    for path, params, status, slug in cases:
        refused = client.post(f"{path}:accept", params=params)
        assert (refused.status_code, refused.json()["type"]) == (status, f"urn:maskloop:problem:{slug}")
    assert client.post(f"{url}:accept", params={"replace": True}).status_code == 200


def test_unsure_pixels_are_ignored_and_counted(client: TestClient) -> None:
    """Between the colours of two classes, the tiny model is half sure."""
    image = IMAGE.copy()
    image[:7] = (255, 128, 128)
    url = f"{URL}/{client.post(URL, content=encoded(image)).json()['id']}/mask"
    body = client.post(f"{url}:accept", params={"min_confidence": 0.7}).json()
    assert body["below_confidence"] == body["label"]["unlabelled_pixels"] > 0
    mask = read(client.get(url).content)
    assert (mask == 255).sum() == body["below_confidence"]
