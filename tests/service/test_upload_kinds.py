"""Uploads that are not the file itself are recognised, and the message names the remedy."""

from __future__ import annotations

import base64
import gzip
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from service.upload_kinds import recognise
from tests.service.api.middleware.conftest import serving
from tests.service.conftest import TEST_KEY, MakeSettings, encoded
from tests.service.tiny_bundle import COLORS, nearest, picture, zipped

NOISE = np.random.default_rng(0).integers(0, 256, (150, 200, 3), dtype=np.uint8)
FILES = {kind: encoded(NOISE, kind) for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF")}
PNG = FILES["PNG"]
BASE64 = base64.b64encode(PNG)
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
SVG = b'<?xml version="1.0"?>\n<!-- drawn -->\n<svg xmlns="http://www.w3.org/2000/svg"/>'

KINDS = {
    "base64": (BASE64, "is base64: decode it"),
    "base64 in lines": (base64.encodebytes(PNG), "is base64: decode it"),
    "URL-safe base64": (base64.urlsafe_b64encode(FILES["JPEG"]), "is base64: decode it"),
    "data URL": (b"data:image/png;base64," + BASE64, "is a data URL: decode it"),
    "data URL in quotes": (json.dumps("data:image/png;base64," + BASE64.decode()).encode(), "is a data URL: decode it"),
    "base64 in quotes": (json.dumps(BASE64.decode()).encode(), "is base64: decode it"),
    "JSON": (json.dumps({"image": BASE64.decode()}).encode(), "is JSON: send the bytes of the file itself"),
    "JSON with a byte-order mark": (b"\xef\xbb\xbf [1]", "is JSON"),
    "address": (b"https://example.com/photo.jpg", "is an address"),
    "form without its header": (b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + PNG, "is a form"),
    "SVG": (SVG, "is an SVG"),
    "HTML": (b"\n<!DOCTYPE html><title>404</title>", "is an HTML page"),
    "gzip": (gzip.compress(PNG), "is compressed with gzip: unpack it; a compressed body needs the"),
    "PDF": (b"%PDF-1.7\n", "is a PDF"),
    "PNG of an iOS app": (PNG[:8] + b"\0\0\0\4CgBI" + bytes(8) + PNG[8:], "is a PNG of an iOS app (CgBI): convert it"),
    "GIF": (encoded(NOISE, "GIF"), "is a GIF"),
    "HEIC": (HEIC, "is a HEIC photograph: convert it to JPEG"),
    "video": (b"\0\0\0\x20ftypisom\0\0\2\0", "is a video"),
    "NumPy": (b"\x93NUMPY\1\0", "is a NumPy array"),
    "name of the file": (b"photo.jpg", "is the text 'photo.jpg': send the bytes"),
    "field of a form": (b"file=@photo.jpg", "is the text 'file=@photo.jpg'"),
}


@pytest.mark.parametrize("name", KINDS)
def test_wrapped_or_other_file_is_recognised(shared_client: TestClient, name: str) -> None:
    data, kind = KINDS[name]
    for path in ("/v1/segment", "/v1/images"):
        response = shared_client.post(path, content=data)
        assert (response.status_code, response.json()["type"]) == (415, "urn:maskloop:problem:image-unsupported")
        assert response.json()["detail"].startswith(f"The upload {kind}")


@pytest.mark.parametrize("kind", FILES)
def test_files_that_tools_have_changed_are_recognised(shared_client: TestClient, kind: str) -> None:
    data = FILES[kind]
    assert recognise(data) is None
    changed = {
        "has lost its NUL bytes and line ends": data.translate(None, b"\0\r\n"),
        "was decoded as text": data.decode(errors="replace").encode(),
        "is base64": base64.b64encode(data),
    }
    for text, sent in changed.items():
        response = shared_client.post("/v1/segment", content=sent)
        assert response.status_code in (400, 415)
        assert response.json()["detail"].startswith(f"The upload {text}"), response.text
    # Older versions of curl keep the NUL bytes.
    assert recognise(data.translate(None, b"\r\n")) is not None or len(data) < 8192


def test_zip_archive_is_pointed_to_the_batch_call(shared_client: TestClient, bundle: Path) -> None:
    response = shared_client.post("/v1/segment", content=zipped(bundle))
    assert "/v1/segment/batch" in response.json()["detail"]


def test_remedies_fit_their_call(shared_client: TestClient, bundle: Path) -> None:
    image_id = shared_client.post("/v1/images", content=encoded(picture())).json()["id"]
    mask = shared_client.put(f"/v1/images/{image_id}/mask", content=zipped(bundle)).json()["detail"]
    assert mask.startswith("The upload is a ZIP archive: unpack it")
    for data, kind in ((b'{"version": 1}', "is JSON"), (gzip.compress(zipped(bundle)), "is compressed with gzip")):
        detail = shared_client.post("/v1/models", content=data).json()["detail"]
        assert detail == f"The upload {kind}: send the ZIP of a bundle itself, as `curl --data-binary @FILE` does."
    part = shared_client.post("/v1/segment/batch", files=[("file", ("a.png.gz", gzip.compress(PNG)))])
    assert "is compressed with gzip: unpack it" in part.json()["problem"]["detail"]


def test_mask_in_base64_is_recognised(shared_client: TestClient) -> None:
    image_id = shared_client.post("/v1/images", content=encoded(picture())).json()["id"]
    mask = base64.b64encode(encoded(nearest(picture(), COLORS)))
    response = shared_client.put(f"/v1/images/{image_id}/mask", content=mask)
    assert (response.status_code, response.json()["type"]) == (422, "urn:maskloop:problem:mask-invalid")
    assert response.json()["detail"].startswith("The upload is base64: decode it")


def test_curl_with_d_instead_of_data_binary_is_recognised(make_settings: MakeSettings, tmp_path: Path) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed; other tests send the same bytes")
    (tmp_path / "photo.jpg").write_bytes(FILES["JPEG"])
    with serving(make_settings()) as address:
        url = "http://{}:{}/v1/segment".format(*address)
        options = ["--silent", "-H", f"X-API-Key: {TEST_KEY}", "-d", f"@{tmp_path / 'photo.jpg'}", url]
        ended = subprocess.run([curl, *options], capture_output=True, check=True, timeout=60)
    assert "curl --data-binary @FILE" in json.loads(ended.stdout)["detail"]


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_nothing_raises(data: bytes) -> None:
    kind = recognise(data)
    assert kind is None or kind.startswith(("is ", "has ", "was "))


@given(st.binary(min_size=1, max_size=2000))
def test_compressed_archives_are_not_taken_for_changed_files(data: bytes) -> None:
    assert "lost" not in (recognise(gzip.compress(data)) or "")
