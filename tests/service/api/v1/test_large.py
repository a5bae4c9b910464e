"""Images above the limits: rejected by their header, or reduced, which a response header reports."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

from tests.service.conftest import MakeSettings, encoded, read, serve
from tests.service.tiny_bundle import COLORS, add_tile, nearest, picture, write_bundle


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def header_only(side: int) -> bytes:
    """A PNG whose header declares a square of pixels, without the pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_image_above_the_pixel_limit_is_rejected_by_its_header(make_settings: MakeSettings) -> None:
    """Also with the highest limit. Decoding would report a damaged file instead."""
    for limit in (24_000_000, 178_000_000):
        with serve(make_settings(max_image_pixels=limit)) as client:
            response = client.post("/v1/segment", content=header_only(20_000))
        assert response.status_code == 413
        assert response.json()["type"] == "urn:maskloop:problem:image-too-large"
        assert str(limit) in response.json()["detail"]
        assert "MASKLOOP_MAX_IMAGE_PIXELS" in response.json()["detail"]


def test_enlarged_mask_has_a_scale_header(make_settings: MakeSettings, tmp_path: Path) -> None:
    rule = {"rule": "whole", "long_side": 20, "multiple": 1}
    model = write_bundle(tmp_path / "resizing", inference=rule)
    with serve(make_settings(model=str(model), max_inference_bytes=(12 + 16 * 5 + 256) * 1000)) as client:
        whole = client.post("/v1/segment", content=encoded(picture(40, 30)))
        reduced = client.post("/v1/segment", content=encoded(picture(400, 300)))
    assert "X-Mask-Scale" not in whole.headers
    assert 0.1 < float(reduced.headers["X-Mask-Scale"]) < 0.25
    assert read(reduced.content).shape == (300, 400)


def test_model_with_windows_accepts_images_above_max_native_pixels(make_settings: MakeSettings, bundle: Path) -> None:
    add_tile(bundle, window=(24, 16))
    image_HW3 = picture(200, 150)
    with serve(make_settings(max_native_pixels=1000)) as client:
        response = client.post("/v1/segment", content=encoded(image_HW3))
    assert response.status_code == 200
    np.testing.assert_array_equal(read(response.content), nearest(image_HW3, COLORS))
