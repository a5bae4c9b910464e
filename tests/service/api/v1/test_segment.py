"""`POST /v1/segment` on a real app with a real graph."""

from __future__ import annotations

import base64
import io
import json
import re
import sys
import zipfile

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from pycocotools import mask as coco

from tests.service.conftest import encoded, read
from tests.service.tiny_bundle import COLORS, NAMES, nearest, picture

URL = "/v1/segment"
AS_JSON = {"Accept": "application/json"}


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
        assert "polygons" not in entry
    assert sum(c["fraction"] for c in body["classes"]) == pytest.approx(1, abs=1e-4)


def test_jpeg_overlay_has_the_images_size(client: TestClient) -> None:
    sent = {"Accept": "image/jpeg"}
    response = client.post(URL, content=encoded(picture()), headers=sent, params={"legend": False})
    assert response.headers["content-type"] == "image/jpeg"
    assert read(response.content).shape == (30, 40, 3)
    # Names and colours stand under it.
    assert read(client.post(URL, content=encoded(picture()), headers=sent).content).shape[0] > 60


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
    response = client.post(URL, content=stored)
    np.testing.assert_array_equal(read(response.content), nearest(upright, COLORS))
    assert response.headers["x-image-orientation"] == "6"
    assert client.post(URL, content=encoded(upright)).headers["x-image-orientation"] == "1"
    assert client.post(URL, content=stored, headers=AS_JSON).json()["orientation"] == 6


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


def test_polygons_come_when_they_are_asked_for(client: TestClient) -> None:
    # Straight edges, so that nothing is left to simplify.
    image = np.zeros((30, 40, 3), np.uint8)
    image[10:20, 5:25] = 255
    asked = {"polygons": True, "tolerance_px": 0}
    body = client.post(URL, content=encoded(image), headers=AS_JSON, params=asked).json()
    rings = {entry["name"]: entry["polygons"] for entry in body["classes"]}
    assert [sorted(ring) for ring in rings["white"]] == [[[5, 10], [5, 20], [25, 10], [25, 20]]]
    assert len(rings["black"]) == 2


def test_only_the_classes_that_were_asked_for(client: TestClient) -> None:
    image = picture()
    truth = nearest(image, COLORS)
    data = encoded(image)
    for asked in ({"classes": "red,2"}, {"classes": ["red", "blue"]}):
        mask = read(client.post(URL, content=data, params=asked).content)
        np.testing.assert_array_equal(mask, np.where(np.isin(truth, [0, 2]), truth, 255))
        body = client.post(URL, content=data, params=asked, headers=AS_JSON).json()
        assert {entry["name"] for entry in body["classes"]} == {"red", "blue"}
        assert sum(entry["fraction"] for entry in body["classes"]) < 1


def test_an_overlay_paints_only_the_classes_that_were_asked_for(client: TestClient) -> None:
    halves = np.zeros((64, 64, 3), np.uint8)
    halves[:, :32], halves[:, 32:] = (250, 60, 60), (20, 220, 60)
    asked: dict[str, str | bool] = {"classes": "red", "legend": False}
    overlay = client.post(URL, content=encoded(halves), params=asked, headers={"Accept": "image/jpeg"})
    found = read(overlay.content).astype(int)
    np.testing.assert_allclose(found[32, 8], [252, 30, 30], atol=15)
    np.testing.assert_allclose(found[32, 56], [20, 220, 60], atol=15)


def test_a_class_that_nobody_knows_is_refused_before_the_image_is_read(client: TestClient) -> None:
    for asked in ("zebra", "red,zebra", "17", ""):
        response = client.post(URL, content=b"no image", params={"classes": asked})
        assert response.status_code == 422
        assert response.json()["type"] == "urn:maskloop:problem:class-unknown"
        assert "0 red, 1 green, 2 blue, 3 black, 4 white" in response.json()["detail"]


def test_the_map_of_confidence(client: TestClient) -> None:
    data, asked = encoded(picture()), {"confidence": True}
    packed = client.post(URL, content=data, params=asked)
    assert packed.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(packed.content)) as archive:
        assert archive.namelist() == ["mask.png", "result.json", "confidence.png"]
        mask, confidence = read(archive.read("mask.png")), read(archive.read("confidence.png"))
        result = json.loads(archive.read("result.json"))
    np.testing.assert_array_equal(mask, nearest(picture(), COLORS))
    assert confidence.shape == mask.shape
    assert confidence.mean() / 255 == pytest.approx(float(packed.headers["x-confidence-mean"]), abs=1e-3)
    assert result["confidence"] == float(packed.headers["x-confidence-mean"])
    assert "confidence_png" not in result
    numbers = client.post(URL, content=data, params=asked, headers=AS_JSON).json()
    np.testing.assert_array_equal(read(base64.b64decode(numbers["confidence_png"])), confidence)
    # What cannot hold it says what can.
    refused = client.post(URL, content=data, params=asked, headers={"Accept": "image/png"})
    assert refused.status_code == 406
    assert "application/zip" in refused.json()["detail"]


def test_mask_and_numbers_in_one_file(client: TestClient) -> None:
    packed = client.post(URL, content=encoded(picture()), headers={"Accept": "application/zip"})
    with zipfile.ZipFile(io.BytesIO(packed.content)) as archive:
        assert archive.namelist() == ["mask.png", "result.json"]
        assert Image.open(io.BytesIO(archive.read("mask.png"))).mode == "P"


def test_json_may_bring_the_mask_as_a_png(client: TestClient) -> None:
    body = client.post(URL, content=encoded(picture()), params={"masks": "png"}, headers=AS_JSON).json()
    np.testing.assert_array_equal(read(base64.b64decode(body["mask_png"])), nearest(picture(), COLORS))
    assert all("rle" not in entry for entry in body["classes"])


@pytest.mark.parametrize("asked", [{"tolerance_px": "nan"}, {"tolerance_px": -1}, {"masks": "gif"}, {"polygons": "x"}])
def test_details_that_make_no_sense_are_refused(client: TestClient, asked: dict[str, str | int]) -> None:
    response = client.post(URL, content=encoded(picture()), params=asked)
    assert response.status_code == 422
    assert response.json()["type"] == "urn:maskloop:problem:invalid-request"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF"])
@pytest.mark.parametrize("form", [True, False])
def test_every_format_by_body_and_by_form(client: TestClient, kind: str, form: bool) -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[16:48, 16:48] = 255
    data = encoded(image, kind)
    sent = {"files": {"file": ("a", data)}} if form else {"content": data}
    mask = read(client.post(URL, **sent).content)
    assert mask[32, 32] == NAMES.index("white")
    assert mask[4, 4] == NAMES.index("black")


def test_the_case_of_the_content_type_does_not_matter(client: TestClient) -> None:
    body = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        + encoded(picture())
        + b"\r\n--x--\r\n"
    )
    response = client.post(URL, content=body, headers={"Content-Type": "Multipart/Form-Data; boundary=x"})
    assert response.status_code == 200


def test_an_image_of_one_pixel(client: TestClient) -> None:
    response = client.post(URL, content=encoded(np.full((1, 1, 3), 255, np.uint8)))
    assert read(response.content).tolist() == [[4]]


def test_metrics_count_by_route_template(client: TestClient) -> None:
    client.post(URL, content=encoded(picture()))
    client.get("/v1/images/" + "0" * 64)
    text = client.get("/metrics").text
    assert 'maskloop_requests_total{method="POST",route="/v1/segment",status="200"} 1.0' in text
    assert 'route="/v1/images/{image_id}",status="404"' in text
    assert "0" * 64 not in text


def test_the_openapi_document_can_be_made(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert "image/png" in document["paths"][URL]["post"]["responses"]["200"]["content"]
    assert "multipart/form-data" in document["paths"][URL]["post"]["requestBody"]["content"]
    for path in (URL, "/v1/segment/batch"):
        answers = document["paths"][path]["post"]["responses"]
        assert {"400", "404", "408", "409", "413", "422", "500", "503"} < set(answers)
        for status, answer in answers.items():
            assert status == "200" or list(answer["content"]) == ["application/problem+json"]
    # Every reference leads somewhere.
    for name in re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)):
        assert name in document["components"]["schemas"]
    assert sys.getsizeof(json.dumps(document)) > 1000
