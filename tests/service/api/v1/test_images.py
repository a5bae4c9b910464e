"""`/v1/images` over HTTP."""

from __future__ import annotations

import hashlib

import numpy as np
from fastapi.testclient import TestClient
from PIL import Image

from tests.service.conftest import encoded, read
from tests.service.tiny_bundle import picture

URL = "/v1/images"


def test_image_is_added_labelled_read_and_deleted(client: TestClient) -> None:
    data = encoded(picture())
    added = client.post(URL, content=data)
    assert added.status_code == 201
    image_id = hashlib.sha256(data).hexdigest()
    assert added.headers["location"] == f"{URL}/{image_id}"
    assert client.post(URL, files={"file": data}).status_code == 200
    assert client.get(f"{URL}/{image_id}").json()["split"] is None

    mask = encoded(np.full((30, 40), 3, np.uint8))
    put = client.put(f"{URL}/{image_id}/mask", content=mask, params={"split": "val"})
    assert put.json()["split"] == "val"
    assert (read(client.get(f"{URL}/{image_id}/mask").content) == 3).all()
    listed = client.get(URL, params={"which": "labelled"}).json()
    assert [image["id"] for image in listed["images"]] == [image_id]
    assert (listed["labelled"], listed["val"], listed["unlabelled"]) == (0, 1, 0)

    content = client.get(f"{URL}/{image_id}/content")
    assert content.content == data
    assert content.headers["content-type"] == "image/png"
    assert content.headers["x-content-type-options"] == "nosniff"
    deleted = client.delete(f"{URL}/{image_id}")
    assert (deleted.status_code, deleted.json()) == (200, {"id": image_id, "models": []})
    assert client.get(f"{URL}/{image_id}").status_code == 404


def test_mask_must_match_the_upright_image(client: TestClient) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image_id = client.post(URL, content=encoded(picture(40, 20), exif=exif)).json()["id"]
    assert client.put(f"{URL}/{image_id}/mask", content=encoded(np.zeros((20, 40), np.uint8))).status_code == 422
    assert client.put(f"{URL}/{image_id}/mask", content=encoded(np.zeros((40, 20), np.uint8))).status_code == 200


def test_mask_ids_must_be_classes_of_the_active_model(client: TestClient) -> None:
    image_id = client.post(URL, content=encoded(picture())).json()["id"]
    for value, status in ((4, 200), (5, 422), (255, 200)):
        mask = encoded(np.full((30, 40), value, np.uint8))
        assert client.put(f"{URL}/{image_id}/mask", content=mask).status_code == status


def test_binary_mask_needs_a_confirmation(client: TestClient) -> None:
    url = f"{URL}/{client.post(URL, content=encoded(picture())).json()['id']}/mask"
    mask = np.zeros((30, 40), np.uint8)
    mask[:9] = 255
    rejected = client.put(url, content=encoded(mask))
    assert (rejected.status_code, rejected.json()["type"]) == (422, "urn:maskloop:problem:mask-invalid")
    assert "is it a class? Then replace 255 by the id of the class" in rejected.json()["detail"]
    assert client.put(url, content=encoded(mask), params={"partial": True}).status_code == 200
    assert (read(client.get(url).content) == mask).all()


def test_unknown_images_and_invalid_parameters_get_problems(client: TestClient) -> None:
    for response, status, slug in (
        (client.get(f"{URL}/nothing"), 404, "image-not-found"),
        (client.get(f"{URL}/..%2f..%2fetc%2fpasswd/content"), 404, "not-found"),
        (client.delete(f"{URL}/{'0' * 64}"), 404, "image-not-found"),
        (client.put(f"{URL}/{'0' * 64}/mask", content=b"x"), 404, "image-not-found"),
        (client.get(URL, params={"which": "some"}), 422, "invalid-request"),
        (client.get(URL, params={"limit": 0}), 422, "invalid-request"),
        (client.get(URL, params={"cursor": "zzz"}), 400, "bad-input"),
        (client.post(URL, content=b"text"), 415, "image-unsupported"),
    ):
        assert response.status_code == status, response.text
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["type"] == f"urn:maskloop:problem:{slug}"


def test_pages_list_every_image_newest_first(client: TestClient) -> None:
    ids = [client.post(URL, content=encoded(picture(seed=i))).json()["id"] for i in range(3)]
    first = client.get(URL, params={"limit": 2}).json()
    second = client.get(URL, params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [i["id"] for i in first["images"] + second["images"]] == ids[::-1]
    assert second["next_cursor"] is None
