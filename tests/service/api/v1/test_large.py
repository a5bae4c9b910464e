"""Images beyond the limits: refused by their header, or reduced, which the answer says."""

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
    """A PNG whose header promises a square of pixels, with none behind it."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_20000_by_20000_pixels_are_refused_by_the_header_alone(make_settings: MakeSettings) -> None:
    """Also with the limit at its highest. Decoding would say that the file is damaged."""
    for limit in (24_000_000, 178_000_000):
        with serve(make_settings(max_image_pixels=limit)) as client:
            response = client.post("/v1/segment", content=header_only(20_000))
        assert response.status_code == 413
        assert response.json()["type"] == "urn:maskloop:problem:image-too-large"
        assert str(limit) in response.json()["detail"]
        assert "MASKLOOP_MAX_IMAGE_PIXELS" in response.json()["detail"]


def test_a_mask_that_was_enlarged_says_so(make_settings: MakeSettings, tmp_path: Path) -> None:
    rule = {"rule": "whole", "long_side": 20, "multiple": 1}
    model = write_bundle(tmp_path / "resizing", inference=rule)
    with serve(make_settings(model=str(model), max_inference_bytes=(12 + 16 * 5 + 256) * 1000)) as client:
        whole = client.post("/v1/segment", content=encoded(picture(40, 30)))
        reduced = client.post("/v1/segment", content=encoded(picture(400, 300)))
    assert "X-Mask-Scale" not in whole.headers
    assert 0.1 < float(reduced.headers["X-Mask-Scale"]) < 0.25
    assert read(reduced.content).shape == (300, 400)


def test_a_model_that_goes_by_windows_answers_for_more_than_one_piece(
    make_settings: MakeSettings, bundle: Path
) -> None:
    add_tile(bundle, window=(24, 16))
    image_HW3 = picture(200, 150)
    with serve(make_settings(max_native_pixels=1000)) as client:
        response = client.post("/v1/segment", content=encoded(image_HW3))
    assert response.status_code == 200
    np.testing.assert_array_equal(read(response.content), nearest(image_HW3, COLORS))
