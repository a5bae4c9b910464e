"""`POST /v1/segment` on a real app with a real graph."""

from __future__ import annotations

import io
import json
import sys

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from pycocotools import mask as coco

from tests.service.conftest import encoded, read
from tests.service.tiny_bundle import COLORS, NAMES, nearest, picture

URL = "/v1/segment"


def test_png_is_indexed_and_carries_the_class_colours(client: TestClient) -> None:
    image = picture()
    response = client.post(URL, content=encoded(image))
    assert response.status_code == 200
    assert response.headers["content-type"] == "image/png"
    np.testing.assert_array_equal(read(response.content), nearest(image, COLORS))
    with Image.open(io.BytesIO(response.content)) as mask:
        assert mask.mode == "P"
        assert mask.getpalette()[:15] == list(np.ravel(COLORS))  # type: ignore[index]


def test_headers_say_who_answered_how_sure_and_how_long(client: TestClient) -> None:
    headers = client.post(URL, content=encoded(picture())).headers
    assert headers["x-model-version"] == "20260101T000000-aaaaaaaa"
    assert 0.2 < float(headers["x-confidence-mean"]) <= 1
    assert [part.split(";")[0] for part in headers["server-timing"].split(", ")] == [
        "decode",
        "queue",
        "infer",
        "encode",
    ]


# pycocotools 2.0.11 does not know numpy 2's `copy` argument yet; only its decoder warns.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_json_counts_and_locates_every_class(client: TestClient) -> None:
    image = picture()
    truth = nearest(image, COLORS)
    body = client.post(URL, content=encoded(image), headers={"Accept": "application/json"}).json()
    assert (body["width"], body["height"]) == (40, 30)
    assert [c["id"] for c in body["classes"]] == np.unique(truth).tolist()
    for entry in body["classes"]:
        assert entry["name"] == NAMES[entry["id"]]
        assert entry["pixels"] == int((truth == entry["id"]).sum())
        np.testing.assert_array_equal(coco.decode(entry["rle"]), truth == entry["id"])
        assert entry["polygons"]
    assert sum(c["fraction"] for c in body["classes"]) == pytest.approx(1, abs=1e-4)


def test_jpeg_overlay_has_the_images_size(client: TestClient) -> None:
    response = client.post(URL, content=encoded(picture()), headers={"Accept": "image/jpeg"})
    assert response.headers["content-type"] == "image/jpeg"
    assert read(response.content).shape == (30, 40, 3)


def test_multipart_gives_the_same_mask(client: TestClient) -> None:
    data = encoded(picture())
    assert client.post(URL, files={"file": ("photo.png", data)}).content == client.post(URL, content=data).content


def test_curls_default_content_type_does_not_matter(client: TestClient) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert client.post(URL, content=encoded(picture()), headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("accept", "answer"),
    [
        ("*/*", "image/png"),
        ("application/json", "application/json"),
        ("image/*", "image/png"),
        ("image/jpeg, image/png;q=0.5", "image/jpeg"),
        ("image/png;q=0.2, application/json;q=0.9, */*;q=0.1", "application/json"),
        ("image/*;q=0.5, image/png;q=0", "image/jpeg"),
        ("text/html, application/xhtml+xml, */*;q=0.8", "image/png"),
    ],
)
def test_accept_is_negotiated(client: TestClient, accept: str, answer: str) -> None:
    assert client.post(URL, content=encoded(picture()), headers={"Accept": accept}).headers["content-type"] == answer


@pytest.mark.parametrize("accept", ["text/html", "image/png;q=0", "image/gif, video/*"])
def test_what_we_cannot_write_is_406(client: TestClient, accept: str) -> None:
    response = client.post(URL, content=encoded(picture()), headers={"Accept": accept})
    assert response.status_code == 406
    assert response.json()["type"] == "urn:maskloop:problem:not-acceptable"


def test_exif_orientation_is_applied(client: TestClient) -> None:
    """The mask has the size that viewers show, and equals the mask of the picture turned by hand."""
    upright = picture(40, 20)
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn 90 degrees clockwise to see it upright"
    stored = encoded(np.rot90(upright, 1), exif=exif)
    mask = read(client.post(URL, content=stored).content)
    np.testing.assert_array_equal(mask, nearest(upright, COLORS))


def test_contribute_puts_the_image_into_the_pool(client: TestClient) -> None:
    data = encoded(picture())
    assert "x-image-id" not in client.post(URL, content=data).headers
    image_id = client.post(URL, content=data, params={"contribute": True}).headers["x-image-id"]
    assert client.get(f"/v1/images/{image_id}/content").content == data
    assert client.get("/v1/images").json()["unlabelled"] == 1


def test_errors_are_problems_with_a_remedy(client: TestClient) -> None:
    for content, status, slug in (
        (b"", 400, "bad-input"),
        (b"hello", 415, "image-unsupported"),
        (encoded(picture())[:200], 400, "image-unreadable"),
        (b"GIF89a" + bytes(100), 415, "image-unsupported"),
    ):
        response = client.post(URL, content=content)
        assert response.status_code == status
        assert response.headers["content-type"] == "application/problem+json"
        body = response.json()
        assert body["type"] == f"urn:maskloop:problem:{slug}"
        assert body["status"] == status
        assert ":" in body["detail"]


def test_a_form_without_a_file_is_told_so(client: TestClient) -> None:
    response = client.post(URL, files={"other": ("a.png", b"123")})
    assert response.status_code == 400
    assert "named `file`" in response.json()["detail"]


def test_an_image_of_one_pixel(client: TestClient) -> None:
    response = client.post(URL, content=encoded(np.full((1, 1, 3), 255, np.uint8)))
    assert read(response.content).tolist() == [[4]]


def test_metrics_count_by_route_template(client: TestClient) -> None:
    client.post(URL, content=encoded(picture()))
    client.get("/v1/images/" + "0" * 64)
    text = client.get("/metrics").text
    assert 'maskloop_requests_total{method="POST",route="/v1/segment",status="200"} 1.0' in text
    assert 'route="/v1/images/{image_id}",status="404"' in text
    assert "0000000" not in text


def test_the_openapi_document_can_be_made(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert "image/png" in document["paths"][URL]["post"]["responses"]["200"]["content"]
    assert "multipart/form-data" in document["paths"][URL]["post"]["requestBody"]["content"]
    assert sys.getsizeof(json.dumps(document)) > 1000
