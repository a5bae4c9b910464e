"""`POST /v1/imports`, with the real trainer."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from tests.service.conftest import encoded, read, serve, settings_maker
from tests.service.tiny_bundle import NAMES, picture, write_bundle

URL = "/v1/imports"
NDJSON = "application/x-ndjson"
LISTED = ("white", "red")
"""Classes of the archive: others than the model's, in another order."""
SPLITS = {"train": ["a", "b"], "val": ["c"], "unlabelled": ["d"]}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("imports")
    make = settings_maker(folder, write_bundle(folder / "bundle"))
    with serve(make(max_import_bytes=300_000)) as ready:
        yield ready


def images(seed: int = 0) -> dict[str, bytes]:
    return {name: encoded(picture(seed=4 * seed + number)) for number, name in enumerate("abcd")}


MASKS = {
    name: np.random.default_rng(number).integers(0, 2, (30, 40), dtype=np.uint8) for number, name in enumerate("abc")
}


def archive(
    pictures: Mapping[str, bytes], names: tuple[str, ...] = LISTED, more: Mapping[str, bytes] = MappingProxyType({})
) -> bytes:
    """Two folders and a list of classes."""
    lines = "".join(f'[[classes]]\nname = "{name}"\ncolor = [{index}, 0, 9]\n' for index, name in enumerate(names))
    files = {"classes.toml": lines.encode(), **more}
    files |= {f"images/{name}.png": content for name, content in pictures.items()}
    files |= {f"masks/{name}.png": encoded(MASKS[name]) for name in pictures if name in MASKS}
    files |= {f"splits/{split}.txt": "\n".join(listed).encode() for split, listed in SPLITS.items()}
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return sink.getvalue()


def lines(response: Any) -> dict[str, list[dict[str, Any]]]:
    """Lines by event."""
    assert (response.status_code, response.headers["content-type"]) == (200, NDJSON), response.text
    found: dict[str, list[dict[str, Any]]] = {}
    for line in response.text.splitlines():
        found.setdefault(json.loads(line)["event"], []).append(json.loads(line))
    return found


def left(client: TestClient) -> list[Path]:
    return list(client.app_state["maskloop"].settings.tmp_dir.iterdir())


def test_archive_becomes_a_data_set(client: TestClient) -> None:
    response = client.post(URL, content=archive(images()))
    assert (response.status_code, response.headers["content-type"]) == (200, "application/zip")
    with zipfile.ZipFile(io.BytesIO(response.content)) as packed:
        assert {"classes.toml", "import.json", "overview.jpg", "images/a.png"} <= set(packed.namelist())
        np.testing.assert_array_equal(read(packed.read("masks/a.png")), MASKS["a"])
    assert client.get("/v1/images").json()["images"] == []
    assert left(client) == []


def test_report_without_the_data_set(client: TestClient) -> None:
    form = {"file": ("own.zip", archive(images()), "application/zip")}
    found = lines(client.post(URL, files=form, headers={"Accept": NDJSON}))
    assert list(found) == ["found", "loss", "done"]
    assert found["found"][0]["format"] == "folder"
    assert [entry["name"] for entry in found["done"][0]["classes"]] == list(LISTED)
    assert "target" not in found["done"][0]


def test_images_and_labels_are_added_by_class_name_with_their_splits(client: TestClient) -> None:
    pictures = images(seed=1)
    client.post("/v1/images", content=pictures["a"])
    found = lines(client.post(URL, content=archive(pictures), params={"add": True}))
    assert [(line["name"], line["new"], line["label"]) for line in found["image"]] == [
        ("a", False, "added"),
        ("b", True, "added"),
        ("c", True, "added"),
        ("d", True, None),
    ]
    assert found["added"] == [
        {"event": "added", "images": 3, "known": 1, "labels": 3, "replaced": 0, "kept": 0, "rejected": 0}
    ]
    of_pool = np.array([NAMES.index(name) for name in LISTED])
    for line in found["image"]:
        record = client.get(f"/v1/images/{line['id']}").json()
        assert client.get(f"/v1/images/{line['id']}/content").content == pictures[line["name"]]
        assert record["split"] == {"a": "labelled", "b": "labelled", "c": "val"}.get(line["name"])
        if line["label"]:
            label = read(client.get(f"/v1/images/{line['id']}/mask").content)
            np.testing.assert_array_equal(label, of_pool[MASKS[line["name"]]])


def test_existing_labels_are_replaced_on_request_only(client: TestClient) -> None:
    pictures = images(seed=2)
    image = client.post("/v1/images", content=pictures["a"]).json()["id"]
    own = encoded(np.ones((30, 40), dtype=np.uint8))
    client.put(f"/v1/images/{image}/mask", content=own, params={"split": "val"})
    found = lines(client.post(URL, content=archive(pictures), params={"add": True}))
    assert (found["image"][0]["label"], found["added"][0]["kept"]) == ("kept", 1)
    assert (read(client.get(f"/v1/images/{image}/mask").content) == 1).all()
    found = lines(client.post(URL, content=archive(pictures), params={"add": True, "replace": True}))
    assert found["added"][0] | {"replaced": 3, "known": 4} == found["added"][0]
    assert client.get(f"/v1/images/{image}").json()["split"] == "labelled"


def test_unknown_class_gets_422_and_can_be_left_out(client: TestClient) -> None:
    pictures = images(seed=3)
    packed = archive(pictures, ("weed", "red"))
    response = client.post(URL, content=packed, params={"add": True})
    assert (response.status_code, response.json()["type"]) == (422, "urn:maskloop:problem:class-unknown")
    assert "shows the classes weed, and the class list has red, green," in response.json()["detail"]
    found = lines(client.post(URL, content=packed, params={"add": True, "ignore_class": "weed"}))
    label = read(client.get(f"/v1/images/{found['image'][0]['id']}/mask").content)
    np.testing.assert_array_equal(label, np.where(MASKS["a"] == 0, 255, NAMES.index("red")))


def test_image_that_the_pool_rejects_does_not_stop_the_others(client: TestClient) -> None:
    pictures = images(seed=4)
    deep = encoded(np.linspace(0, 1, 1200, dtype=np.float32).reshape(30, 40), "TIFF")
    del pictures["b"]
    packed = archive(pictures, more={"images/b.tif": deep, "masks/b.png": encoded(MASKS["b"])})
    found = lines(client.post(URL, content=packed, params={"add": True}))
    problems = {line["name"]: line["problem"]["status"] for line in found["image"] if line["problem"]}
    assert problems == {"b": 415}
    assert (found["added"][0]["images"], found["added"][0]["rejected"]) == (3, 1)


@pytest.mark.parametrize(
    ("content", "params", "message"),
    [
        (b"no archive", {}, "source.zip: is not a readable ZIP archive"),
        (archive({}, more={"../out": b"x"}), {}, "leaves the folder"),
        (archive({}, more={"zeros": bytes(400_000)}), {}, "unpacks to more than the limit"),
        (archive({}), {"format": "nothing"}, "invalid choice: 'nothing'"),
    ],
)
def test_unusable_archives_get_422(client: TestClient, content: bytes, params: dict[str, str], message: str) -> None:
    response = client.post(URL, content=content, params=params)
    assert (response.status_code, response.json()["type"]) == (422, "urn:maskloop:problem:conversion-impossible")
    assert message in response.json()["detail"]
    assert left(client) == []


def test_upload_above_the_limit_gets_413(client: TestClient) -> None:
    assert client.post(URL, content=bytes(400_000)).status_code == 413
