"""`POST /v1/segment`, with the real app and a real graph."""

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

from tests.contract.image_files import tiff
from tests.service.conftest import encoded, read
from tests.service.tiny_bundle import COLORS, NAMES, nearest, picture

URL = "/v1/segment"
AS_JSON = {"Accept": "application/json"}


def test_png_has_a_palette_with_the_class_colours(shared_client: TestClient) -> None:
    image = picture()
    response = shared_client.post(URL, content=encoded(image))
    assert response.status_code == 200
    assert response.headers["content-type"] == "image/png"
    np.testing.assert_array_equal(read(response.content), nearest(image, COLORS))
    with Image.open(io.BytesIO(response.content)) as mask:
        assert mask.mode == "P"
        assert mask.getpalette()[:15] == list(np.ravel(COLORS))  # type: ignore[index]


def test_headers_have_model_confidence_and_timings(shared_client: TestClient) -> None:
    headers = shared_client.post(URL, content=encoded(picture())).headers
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
def test_json_has_pixels_and_rle_of_every_class(shared_client: TestClient) -> None:
    image = picture()
    truth = nearest(image, COLORS)
    body = shared_client.post(URL, content=encoded(image), headers={"Accept": "application/json"}).json()
    assert (body["width"], body["height"]) == (40, 30)
    assert [c["id"] for c in body["classes"]] == np.unique(truth).tolist()
    for entry in body["classes"]:
        assert entry["name"] == NAMES[entry["id"]]
        assert entry["pixels"] == int((truth == entry["id"]).sum())
        np.testing.assert_array_equal(coco.decode(entry["rle"]), truth == entry["id"])
        assert "polygons" not in entry
    assert sum(c["fraction"] for c in body["classes"]) == pytest.approx(1, abs=1e-4)


def test_jpeg_overlay_has_the_size_of_the_image_without_a_legend(shared_client: TestClient) -> None:
    headers = {"Accept": "image/jpeg"}
    response = shared_client.post(URL, content=encoded(picture()), headers=headers, params={"legend": False})
    assert response.headers["content-type"] == "image/jpeg"
    assert read(response.content).shape == (30, 40, 3)
    # The legend is drawn below the image.
    assert read(shared_client.post(URL, content=encoded(picture()), headers=headers).content).shape[0] > 60


def test_multipart_gives_the_same_mask(shared_client: TestClient) -> None:
    data = encoded(picture())
    assert (
        shared_client.post(URL, files={"file": ("photo.png", data)}).content
        == shared_client.post(URL, content=data).content
    )


def test_default_content_type_of_curl_is_accepted(shared_client: TestClient) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert shared_client.post(URL, content=encoded(picture()), headers=headers).status_code == 200


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
def test_accept_is_negotiated(shared_client: TestClient, accept: str, answer: str) -> None:
    assert (
        shared_client.post(URL, content=encoded(picture()), headers={"Accept": accept}).headers["content-type"]
        == answer
    )


@pytest.mark.parametrize("accept", ["text/html", "image/png;q=0", "image/gif, video/*"])
def test_unsupported_media_types_get_406(shared_client: TestClient, accept: str) -> None:
    response = shared_client.post(URL, content=encoded(picture()), headers={"Accept": accept})
    assert response.status_code == 406
    assert response.json()["type"] == "urn:maskloop:problem:not-acceptable"


def test_exif_orientation_is_applied(shared_client: TestClient) -> None:
    """The mask has the size that viewers show, and equals the mask of the upright picture."""
    upright = picture(40, 20)
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise to make it upright
    stored = encoded(np.rot90(upright, 1), exif=exif)
    response = shared_client.post(URL, content=stored)
    np.testing.assert_array_equal(read(response.content), nearest(upright, COLORS))
    assert response.headers["x-image-orientation"] == "6"
    assert shared_client.post(URL, content=encoded(upright)).headers["x-image-orientation"] == "1"
    assert shared_client.post(URL, content=stored, headers=AS_JSON).json()["orientation"] == 6


def test_contribute_adds_the_image_to_the_pool(client: TestClient) -> None:
    data = encoded(picture())
    assert "x-image-id" not in client.post(URL, content=data).headers
    image_id = client.post(URL, content=data, params={"contribute": True}).headers["x-image-id"]
    assert client.get(f"/v1/images/{image_id}/content").content == data
    assert client.get("/v1/images").json()["unlabelled"] == 1


def test_invalid_images_get_problems_with_a_remedy(shared_client: TestClient) -> None:
    for content, status, slug in (
        (b"", 400, "bad-input"),
        (b"hello", 415, "image-unsupported"),
        (encoded(picture())[:200], 400, "image-unreadable"),
        (b"GIF89a" + bytes(100), 415, "image-unsupported"),
    ):
        response = shared_client.post(URL, content=content)
        assert response.status_code == status
        assert response.headers["content-type"] == "application/problem+json"
        body = response.json()
        assert body["type"] == f"urn:maskloop:problem:{slug}"
        assert body["status"] == status
        assert ":" in body["detail"]


def test_form_without_a_file_gets_400(shared_client: TestClient) -> None:
    response = shared_client.post(URL, files={"other": ("a.png", b"123")})
    assert response.status_code == 400
    assert "named `file`" in response.json()["detail"]


def test_polygons_are_returned_on_request(shared_client: TestClient) -> None:
    # Straight edges, so that simplification changes nothing.
    image = np.zeros((30, 40, 3), np.uint8)
    image[10:20, 5:25] = 255
    params = {"polygons": True, "tolerance_px": 0}
    body = shared_client.post(URL, content=encoded(image), headers=AS_JSON, params=params).json()
    rings = {entry["name"]: entry["polygons"] for entry in body["classes"]}
    assert [sorted(ring) for ring in rings["white"]] == [[[5, 10], [5, 20], [25, 10], [25, 20]]]
    assert len(rings["black"]) == 2


def test_classes_parameter_selects_classes(shared_client: TestClient) -> None:
    image = picture()
    truth = nearest(image, COLORS)
    data = encoded(image)
    for params in ({"classes": "red,2"}, {"classes": ["red", "blue"]}):
        mask = read(shared_client.post(URL, content=data, params=params).content)
        np.testing.assert_array_equal(mask, np.where(np.isin(truth, [0, 2]), truth, 255))
        body = shared_client.post(URL, content=data, params=params, headers=AS_JSON).json()
        assert {entry["name"] for entry in body["classes"]} == {"red", "blue"}
        assert sum(entry["fraction"] for entry in body["classes"]) < 1


def test_overlay_tints_only_the_selected_classes(shared_client: TestClient) -> None:
    halves = np.zeros((64, 64, 3), np.uint8)
    halves[:, :32], halves[:, 32:] = (250, 60, 60), (20, 220, 60)
    params: dict[str, str | bool] = {"classes": "red", "legend": False}
    overlay = shared_client.post(URL, content=encoded(halves), params=params, headers={"Accept": "image/jpeg"})
    pixels = read(overlay.content).astype(int)
    np.testing.assert_allclose(pixels[32, 8], [252, 30, 30], atol=15)
    np.testing.assert_allclose(pixels[32, 56], [20, 220, 60], atol=15)


def test_unknown_class_gets_422_before_the_image_is_decoded(shared_client: TestClient) -> None:
    for params in ("zebra", "red,zebra", "17", ""):
        response = shared_client.post(URL, content=b"no image", params={"classes": params})
        assert response.status_code == 422
        assert response.json()["type"] == "urn:maskloop:problem:class-unknown"
        assert "0 red, 1 green, 2 blue, 3 black, 4 white" in response.json()["detail"]


def test_confidence_map_is_returned_in_zip_and_json(shared_client: TestClient) -> None:
    data, params = encoded(picture()), {"confidence": True}
    zip_response = shared_client.post(URL, content=data, params=params)
    assert zip_response.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(zip_response.content)) as archive:
        assert archive.namelist() == ["mask.png", "result.json", "confidence.png"]
        mask, confidence = read(archive.read("mask.png")), read(archive.read("confidence.png"))
        result = json.loads(archive.read("result.json"))
    np.testing.assert_array_equal(mask, nearest(picture(), COLORS))
    assert confidence.shape == mask.shape
    assert confidence.mean() / 255 == pytest.approx(float(zip_response.headers["x-confidence-mean"]), abs=1e-3)
    assert result["confidence"] == float(zip_response.headers["x-confidence-mean"])
    assert "confidence_png" not in result
    body = shared_client.post(URL, content=data, params=params, headers=AS_JSON).json()
    np.testing.assert_array_equal(read(base64.b64decode(body["confidence_png"])), confidence)
    # A PNG cannot contain it; the error names the types that can.
    rejected = shared_client.post(URL, content=data, params=params, headers={"Accept": "image/png"})
    assert rejected.status_code == 406
    assert "application/zip" in rejected.json()["detail"]


def test_zip_contains_mask_and_result(shared_client: TestClient) -> None:
    zip_response = shared_client.post(URL, content=encoded(picture()), headers={"Accept": "application/zip"})
    with zipfile.ZipFile(io.BytesIO(zip_response.content)) as archive:
        assert archive.namelist() == ["mask.png", "result.json"]
        assert Image.open(io.BytesIO(archive.read("mask.png"))).mode == "P"


def test_json_contains_the_mask_as_png_on_request(shared_client: TestClient) -> None:
    body = shared_client.post(URL, content=encoded(picture()), params={"masks": "png"}, headers=AS_JSON).json()
    np.testing.assert_array_equal(read(base64.b64decode(body["mask_png"])), nearest(picture(), COLORS))
    assert all("rle" not in entry for entry in body["classes"])


@pytest.mark.parametrize("params", [{"tolerance_px": "nan"}, {"tolerance_px": -1}, {"masks": "gif"}, {"polygons": "x"}])
def test_invalid_parameters_get_422(shared_client: TestClient, params: dict[str, str | int]) -> None:
    response = shared_client.post(URL, content=encoded(picture()), params=params)
    assert response.status_code == 422
    assert response.json()["type"] == "urn:maskloop:problem:invalid-request"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF"])
@pytest.mark.parametrize("form", [True, False])
def test_every_format_in_body_and_form(shared_client: TestClient, kind: str, form: bool) -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[16:48, 16:48] = 255
    data = encoded(image, kind)
    request = {"files": {"file": ("a", data)}} if form else {"content": data}
    mask = read(shared_client.post(URL, **request).content)
    assert mask[32, 32] == NAMES.index("white")
    assert mask[4, 4] == NAMES.index("black")


def test_content_type_is_case_insensitive(shared_client: TestClient) -> None:
    body = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        + encoded(picture())
        + b"\r\n--x--\r\n"
    )
    response = shared_client.post(URL, content=body, headers={"Content-Type": "Multipart/Form-Data; boundary=x"})
    assert response.status_code == 200


def test_image_of_one_pixel(shared_client: TestClient) -> None:
    response = shared_client.post(URL, content=encoded(np.full((1, 1, 3), 255, np.uint8)))
    assert read(response.content).tolist() == [[4]]


def test_requests_are_counted_by_route_template(client: TestClient) -> None:
    client.post(URL, content=encoded(picture()))
    client.get("/v1/images/" + "0" * 64)
    text = client.get("/metrics").text
    assert 'maskloop_requests_total{method="POST",route="/v1/segment",status="200"} 1.0' in text
    assert 'route="/v1/images/{image_id}",status="404"' in text
    assert "0" * 64 not in text


def test_openapi_document_describes_types_and_errors(shared_client: TestClient) -> None:
    document = shared_client.get("/openapi.json").json()
    assert "image/png" in document["paths"][URL]["post"]["responses"]["200"]["content"]
    assert "multipart/form-data" in document["paths"][URL]["post"]["requestBody"]["content"]
    for path in (URL, "/v1/segment/batch"):
        answers = document["paths"][path]["post"]["responses"]
        assert {"400", "404", "408", "409", "413", "422", "500", "503"} < set(answers)
        for status, answer in answers.items():
            assert status == "200" or list(answer["content"]) == ["application/problem+json"]
    # Every reference has a target.
    for name in re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)):
        assert name in document["components"]["schemas"]
    assert sys.getsizeof(json.dumps(document)) > 1000


def test_header_says_that_the_fourth_band_of_a_geotiff_was_not_used(shared_client: TestClient) -> None:
    image_HW3 = picture()
    infrared_HW4 = np.concatenate([image_HW3, image_HW3[..., :1] // 8], axis=-1)
    geotiff, rgb = tiff((infrared_HW4, {338: 2, 33550: [1, 1, 0]})), encoded(image_HW3)
    response = shared_client.post(URL, content=geotiff)
    assert response.headers["x-image-ignored"] == "fourth band"
    np.testing.assert_array_equal(read(response.content), nearest(image_HW3, COLORS))
    assert "x-image-ignored" not in shared_client.post(URL, content=rgb).headers
    json_only = {"Accept": "application/json"}
    assert shared_client.post(URL, content=geotiff, headers=json_only).json()["ignored"] == "fourth band"
    assert "ignored" not in shared_client.post(URL, content=rgb, headers=json_only).json()
    line = shared_client.post(f"{URL}/batch", files=[("file", ("a.tif", geotiff))]).json()
    assert line["result"]["ignored"] == "fourth band"
    for images, ignored in (
        ([geotiff], "fourth band"),
        ([rgb, geotiff, rgb, geotiff], "fourth band (images 1, 3)"),
        ([rgb], None),
    ):
        data = [base64.b64encode(image).decode() for image in images]
        given = {"name": "image_bytes", "shape": [len(data)], "datatype": "BYTES", "data": data}
        request = {"inputs": [given | {"parameters": {"content_type": "base64"}}]}
        parameters = shared_client.post("/v2/models/seg_bytes/infer", json=request).json()["parameters"]
        assert parameters.get("ignored") == ignored
