"""`POST /v1/images/batch`: many images in one request, a few in one transaction."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from sqlalchemy.exc import OperationalError

from service.api.app import create_app
from service.api.v1 import images_batch
from service.runs.policy.retrain_policy import RetrainPolicy
from tests.service.conftest import MakeSettings, encoded
from tests.service.tiny_bundle import picture
from tests.small_disk import small_disk

URL = "/v1/images/batch"
PICTURES = [encoded(picture(40, 30, seed=number)) for number in range(7)]


def form(*contents: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("file", (f"photo {number}.png", content)) for number, content in enumerate(contents)]


def lines(response: Any) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("application/x-ndjson")
    return sorted((json.loads(line) for line in response.text.splitlines()), key=lambda line: line["index"])


def test_images_are_added_in_groups_and_equal_bytes_once(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images_batch, "MAX_IMAGES", 3)
    client.post("/v1/images", content=PICTURES[0])
    # The sixth equals the fifth, within one transaction.
    contents = [*PICTURES[:5], PICTURES[4], *PICTURES[5:]]
    found = lines(client.post(URL, files=form(*contents)))
    assert [line["status"] for line in found] == [200, 201, 201, 201, 201, 200, 201, 201]
    assert [line["image"]["id"] for line in found] == [hashlib.sha256(data).hexdigest() for data in contents]
    assert [line["filename"] for line in found] == [f"photo {index}.png" for index in range(8)]
    assert client.get("/v1/images").json()["unlabelled"] == len(PICTURES)
    for line, data in zip(found, contents, strict=True):
        stored = client.get(f"/v1/images/{line['image']['id']}").json()
        assert stored == line["image"]
        assert client.get(f"/v1/images/{stored['id']}/content").content == data


def test_invalid_image_does_not_fail_the_others(client: TestClient) -> None:
    contents = [PICTURES[0], b"", PICTURES[1][:-40], b"no image", encoded(picture(), "JPEG")[:-300], PICTURES[2]]
    found = lines(client.post(URL, files=form(*contents)))
    assert [line["status"] for line in found] == [201, 400, 400, 415, 400, 201]
    for line, data in zip(found, contents, strict=True):
        single = client.post("/v1/images", content=data)
        assert line["status"] in (201, single.status_code)
        assert line.get("problem", {}).get("type") == (single.json()["type"] if single.status_code >= 400 else None)
    assert client.get("/v1/images").json()["unlabelled"] == 2


def test_image_beyond_the_limit_of_the_pool_names_the_setting(make_settings: MakeSettings) -> None:
    full = len(PICTURES[0]) + 1
    with TestClient(create_app(make_settings(pool_max_bytes=full))) as client:
        found = lines(client.post(URL, files=form(PICTURES[0], encoded(picture(400, 300)))))
        assert [line["status"] for line in found] == [201, 507]
        assert "MASKLOOP_POOL_MAX_BYTES" in found[1]["problem"]["detail"]


@pytest.mark.usefixtures("on_files")
def test_full_disk_names_the_folder(make_settings: MakeSettings, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 12) as disk:
        settings = make_settings(data_dir=disk.folder / "data")
        with TestClient(create_app(settings)) as client:
            noise = [encoded(picture(400, 300, seed=seed), "BMP") for seed in range(3)]
            assert lines(client.post(URL, files=form(*noise[:1])))[0]["status"] == 201
            (settings.tmp_dir / "received").write_bytes(bytes(2**20))
            disk.fill()
            (settings.tmp_dir / "received").unlink()
            found = lines(client.post(URL, files=form(*noise[1:])))
            assert {line["status"] for line in found} == {507}
            assert found[0]["problem"]["detail"].startswith("The data folder data is full: free space")
            disk.free()
            assert {line["status"] for line in lines(client.post(URL, files=form(*noise)))} == {200, 201}


def test_batch_needs_a_form_of_a_limited_number_of_images(make_settings: MakeSettings, client: TestClient) -> None:
    assert client.post(URL, content=PICTURES[0]).status_code == 400
    assert client.post(URL, files={"other": PICTURES[0]}).status_code == 400
    with TestClient(create_app(make_settings(max_batch_images=2))) as few:
        assert "MASKLOOP_MAX_BATCH_IMAGES" in few.post(URL, files=form(*PICTURES[:3])).json()["detail"]


def test_stored_images_are_acknowledged_if_the_database_fails_after_them(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OperationalError("SELECT", {}, sqlite3.OperationalError("disk I/O error"))

    monkeypatch.setattr(RetrainPolicy, "consider_image", fail)
    monkeypatch.setattr(RetrainPolicy, "consider", fail)
    assert [line["status"] for line in lines(client.post(URL, files=form(*PICTURES[:2])))] == [201, 201]
    added = client.post("/v1/images", content=PICTURES[2])
    assert added.status_code == 201
    mask = encoded(np.ones((30, 40), np.uint8))
    assert client.put(f"/v1/images/{added.json()['id']}/mask", content=mask).status_code == 200
