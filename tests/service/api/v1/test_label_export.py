"""`GET /v1/labels/export`, with the real trainer."""

from __future__ import annotations

import io
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from pycocotools.coco import COCO

from service.errors import ImageNotFound
from service.images.image_store import ImageStore
from tests.service.conftest import MakeSettings, encoded, read, serve
from tests.service.tiny_bundle import NAMES, picture

URL = "/v1/labels/export"
SIZES = ((40, 30), (33, 21), (20, 20))


def labelled(client: TestClient) -> dict[str, np.ndarray]:
    """Send images and labels, and one image without; return the masks by the image's id."""
    masks = {}
    for number, (width, height) in enumerate(SIZES):
        image = client.post("/v1/images", content=encoded(picture(width, height, seed=number))).json()["id"]
        mask = np.random.default_rng(number).integers(0, len(NAMES), (height, width), dtype=np.uint8)
        mask[:2] = 255
        query = {"split": "val", "group": "street, 2"} if number == 0 else {"split": "labelled"}
        assert client.put(f"/v1/images/{image}/mask", content=encoded(mask), params=query).status_code == 200
        masks[image] = mask
    client.post("/v1/images", content=encoded(picture(seed=99)))
    return masks


@pytest.fixture
def small(make_settings: MakeSettings) -> Iterator[TestClient]:
    """A service that does one conversion at a time."""
    with serve(make_settings(max_concurrent_conversions=1)) as client:
        yield client


def files(answer: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(answer)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def left(client: TestClient) -> list[str]:
    """What is left in the folder of requests in progress."""
    folder: Path = client.app_state["maskloop"].settings.tmp_dir
    return [path.name for path in folder.iterdir()]


def test_folder_has_images_masks_splits_groups_and_classes(small: TestClient) -> None:
    masks = labelled(small)
    response = small.get(URL)
    assert (response.status_code, response.headers["content-type"]) == (200, "application/zip")
    assert response.headers["content-disposition"] == 'attachment; filename="labels-folder.zip"'
    found = files(response.content)
    first, *others = masks
    for name, mask in masks.items():
        np.testing.assert_array_equal(read(found[f"masks/{name}.png"]), mask)
        assert found[f"images/{name}.png"] == small.get(f"/v1/images/{name}/content").content
    assert found["splits/val.txt"].decode().split() == [first]
    assert sorted(found["splits/labelled.txt"].decode().split()) == sorted(others)
    assert found["groups.csv"].decode() == f'name,group\n{first},"street, 2"\n'
    assert all(f'name = "{name}"' in found["classes.toml"].decode() for name in NAMES)
    assert len(found) == 2 * len(masks) + 5
    assert left(small) == []


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools 2.0.11 with numpy 2
def test_coco_of_labels_only_is_equal_to_the_pixel(small: TestClient, tmp_path: Path) -> None:
    masks = labelled(small)
    found = files(small.get(URL, params={"format": "coco", "images": False}).content)
    assert sorted(found) == ["README.md", "annotations/instances_train.json", "annotations/instances_val.json"]
    seen = {}
    for split in ("train", "val"):
        (path := tmp_path / f"{split}.json").write_bytes(found[f"annotations/instances_{split}.json"])
        content = COCO(str(path))
        for image in content.imgs.values():
            ids = np.full((image["height"], image["width"]), 255, dtype=np.uint8)
            for annotation in content.imgToAnns[image["id"]]:
                name = content.cats[annotation["category_id"]]["name"]
                ids[content.annToMask(annotation) > 0] = NAMES.index(name)
            seen[image["file_name"].removesuffix(".png")] = ids
    assert seen.keys() == masks.keys()
    for name, mask in masks.items():
        np.testing.assert_array_equal(seen[name], mask)


def test_labels_have_the_present_classes(small: TestClient) -> None:
    masks = labelled(small)
    # The ids of the classes that stay are 0, 1, 2, 3; the retired class is ignored.
    changes = {"renamed": {"red": "brick"}, "retired": ["green"], "derived_from": 1}
    classes = [{"name": name} for name in ("brick", *NAMES[2:])]
    assert small.put("/v1/classes", json={"classes": classes, **changes}).status_code == 200
    found = files(small.get(URL, params={"images": False}).content)
    assert tomllib.loads(found["classes.toml"].decode())["classes"][0]["name"] == "brick"
    new_id = np.array([0, 255, 1, 2, 3, *[255] * 251])
    for name, mask in masks.items():
        np.testing.assert_array_equal(read(found[f"masks/{name}.png"]), new_id[mask])


def test_pool_without_labels_gets_409(small: TestClient) -> None:
    response = small.get(URL)
    assert (response.status_code, response.json()["type"]) == (409, "urn:maskloop:problem:nothing-labelled")
    assert left(small) == []


def test_image_deleted_meanwhile_is_left_out(small: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    first, *others = labelled(small)
    copy_image = ImageStore.copy_image

    def deleting(self: ImageStore, image_id: str, target: Path) -> None:
        if image_id == first:
            raise ImageNotFound("deleted")
        copy_image(self, image_id, target)

    monkeypatch.setattr(ImageStore, "copy_image", deleting)
    found = files(small.get(URL, params={"images": False}).content)
    assert sorted(name for name in found if name.startswith("masks/")) == sorted(f"masks/{name}.png" for name in others)


def test_failures_before_the_first_byte_have_their_status(make_settings: MakeSettings, tmp_path: Path) -> None:
    event = 'echo \'{"event": "error", "message": "a name; rename it", "errno": %s}\' >&2; exit 1'
    failures = {
        "echo 'No module named trainer' >&2; exit 1": (503, "trainer-missing"),
        event % '"ENOSPC"': (507, "storage-unwritable"),
        event % "null": (422, "conversion-impossible"),
        "kill -9 $$": (500, "conversion-failed"),
    }
    (python := tmp_path / "python").touch(0o755)
    with serve(make_settings(trainer_python=str(python))) as client:
        labelled(client)
        for script, (status, slug) in failures.items():
            python.write_text(f"#!/bin/sh\n{script}\n")
            response = client.get(URL)
            assert (response.status_code, response.json()["type"]) == (status, f"urn:maskloop:problem:{slug}")
        assert left(client) == []


def test_limit_on_conversions_gets_503(small: TestClient) -> None:
    small.app_state["maskloop"].conversion_gate._interactive += 1
    response = small.get(URL)
    assert response.status_code == 503
    assert "MASKLOOP_MAX_CONCURRENT_CONVERSIONS" in response.json()["detail"]
