"""Compressed request bodies: decompressed up to the limit, on every route; damage and bombs are rejected."""

from __future__ import annotations

import gzip
import http.client
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from service.api.middleware import decompress_body
from service.api.middleware.decompress_body import Decompressor
from service.errors import BadInput, EncodingUnsupported
from tests.service.api.middleware.conftest import serving
from tests.service.conftest import TEST_KEY, MakeSettings, encoded, read, serve
from tests.service.tiny_bundle import COLORS, nearest, picture, zipped

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "GZIP": gzip.compress,
}
FORMS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    ("gzip", lambda plain: gzip.compress(plain[:9]) + gzip.compress(b"") + gzip.compress(plain[9:])),
    ("deflate", zlib.compress),
    ("deflate", lambda plain: zlib.compress(plain, wbits=-15)),
]
"""Compressed forms by encoding: of gzip also several members, of deflate also without the zlib format."""
IMAGE = encoded(picture())
MASK = nearest(picture(), COLORS)


def inflate(body: bytes, encoding: str, piece: int = 1 << 20) -> bytes:
    decompressor = Decompressor(encoding)
    parts = [part for at in range(0, len(body), piece) for part in decompressor.feed(body[at : at + piece])]
    decompressor.finish()
    return b"".join(parts)


@pytest.mark.parametrize(("encoding", "compress"), FORMS)
@given(
    plain=st.binary(max_size=300) | st.integers(0, 5000).map(bytes), chunk=st.integers(1, 64), piece=st.integers(1, 64)
)
def test_body_is_restored_in_small_parts(
    encoding: str, compress: Callable[[bytes], bytes], plain: bytes, chunk: int, piece: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decompress_body, "CHUNK_BYTES", chunk)
        assert inflate(compress(plain), encoding, piece) == plain
        parts = list(Decompressor(encoding).feed(compress(plain)))
        assert all(0 < len(part) <= chunk for part in parts)


@pytest.mark.parametrize(("encoding", "compress"), [FORMS[0], *FORMS[2:]])
@given(plain=st.binary(max_size=200), at=st.integers(0, 500), junk=st.binary(min_size=1, max_size=5))
def test_truncated_body_and_trailing_data_are_rejected(
    encoding: str, compress: Callable[[bytes], bytes], plain: bytes, at: int, junk: bytes
) -> None:
    compressed = compress(plain)
    with pytest.raises(BadInput, match="truncated"):
        inflate(compressed[: 1 + at % (len(compressed) - 1)], encoding)
    for piece in (1, 1000):
        with pytest.raises(BadInput, match=r"follows the end|not valid gzip|truncated"):
            inflate(compressed + junk, encoding, piece)
        with pytest.raises(BadInput, match="follows the end"):
            inflate(compressed + b"\n" + junk, encoding, piece)


def test_number_of_gzip_members_is_limited() -> None:
    """Else a body of empty ones would take minutes."""
    with pytest.raises(BadInput, match="more than 10000 gzip members"):
        inflate(gzip.compress(b"") * 10_001, "gzip", 1 << 16)


@given(st.binary(max_size=100), st.sampled_from(["gzip", "deflate"]))
def test_random_bytes_raise_only_bad_input(body: bytes, encoding: str) -> None:
    with suppress(BadInput):
        inflate(body, encoding)


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "base64", "x" * 200])
def test_unsupported_encoding_is_rejected(encoding: str) -> None:
    with pytest.raises(EncodingUnsupported, match="gzip, deflate or none"):
        Decompressor(encoding)


@pytest.mark.parametrize("encoding", ["identity, gzip", "GZIP , Identity", "identity", "identity,", ""])
def test_encodings_that_change_nothing_are_ignored(shared_client: TestClient, encoding: str) -> None:
    body = gzip.compress(IMAGE) if "gzip" in encoding.lower() else IMAGE
    response = shared_client.post("/v1/segment", content=body, headers={"Content-Encoding": encoding})
    assert response.status_code == 200, response.text


@pytest.mark.parametrize("encoding", COMPRESS)
def test_compressed_uploads_are_read(shared_client: TestClient, encoding: str, bundle: Path) -> None:
    compress, headers = COMPRESS[encoding], {"Content-Encoding": encoding}

    def send(path: str, plain: bytes, method: str = "POST", **more: str) -> Any:
        response = shared_client.request(method, path, content=compress(plain), headers=headers | more)
        assert response.status_code in (200, 201), response.text
        return response

    np.testing.assert_array_equal(read(send("/v1/segment", IMAGE).content), MASK)
    image_id = send("/v1/images", IMAGE).json()["id"]
    assert shared_client.get(f"/v1/images/{image_id}/content").content == IMAGE
    assert send(f"/v1/images/{image_id}/mask", encoded(MASK), "PUT").json()["labelled_at"]
    assert send("/v1/models", zipped(bundle)).json()["name"] == "tiny"
    form = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n%s\r\n--x--\r\n' % IMAGE
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    np.testing.assert_array_equal(read(send("/v1/segment", form, **kind).content), MASK)
    assert send("/v1/segment/batch", form, **kind).json()["status"] == 200
    whole = {"Inference-Header-Content-Length": "0"}
    assert send("/v2/models/seg_bytes/infer", IMAGE, **whole).headers["X-Model-Version"]
    assert send("/v2/repository/index", b'{"ready": true}').json()


def test_damaged_body_gets_a_problem(shared_client: TestClient) -> None:
    wanted = {
        ("gzip", IMAGE): (400, "bad-input", "not valid gzip"),
        ("gzip", gzip.compress(IMAGE)[:-9]): (400, "bad-input", "truncated"),
        ("gzip", gzip.compress(IMAGE)[:5]): (400, "bad-input", "truncated"),
        ("br", IMAGE): (415, "encoding-unsupported", "send gzip, deflate or none"),
    }
    for (encoding, body), (status, slug, detail) in wanted.items():
        for path in ("/v1/segment", "/v1/images", "/v1/models"):
            response = shared_client.post(path, content=body, headers={"Content-Encoding": encoding})
            assert (response.status_code, response.json()["type"]) == (status, f"urn:maskloop:problem:{slug}")
            assert detail in response.json()["detail"]
    for encoding in ("gzip", "deflate"):
        response = shared_client.post("/v1/segment", content=b"", headers={"Content-Encoding": encoding})
        assert response.json() == shared_client.post("/v1/segment", content=b"").json()
        assert (response.status_code, "The body is empty" in response.json()["detail"]) == (400, True)
    # Without a body, the header says nothing.
    assert shared_client.get("/v1/images", headers={"Content-Encoding": "br"}).status_code == 200


def test_decompression_bomb_is_rejected_with_little_memory(make_settings: MakeSettings) -> None:
    bomb = gzip.compress(bytes(50_000_000), 1)
    with serve(make_settings(max_image_bytes=100_000)) as client:
        assert len(bomb) < 300_000
        tracemalloc.start()
        for path in ("/v1/segment", "/v1/images"):
            response = client.post(path, content=iter([bomb]), headers={"Content-Encoding": "gzip"})
            assert response.status_code == 413
            assert response.json()["type"] == "urn:maskloop:problem:body-too-large"
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
        tracemalloc.stop()


def test_compressed_body_over_a_real_connection(make_settings: MakeSettings) -> None:
    large = picture(700, 500)
    body = gzip.compress(encoded(large, "BMP"), 1)
    with serving(make_settings()) as address, closing(http.client.HTTPConnection(*address, timeout=60)) as connection:
        for sent in (body, iter([body[at : at + 10_000] for at in range(0, len(body), 10_000)])):
            connection.request("POST", "/v1/segment", sent, {"Content-Encoding": "gzip", "X-API-Key": TEST_KEY})
            response = connection.getresponse()
            np.testing.assert_array_equal(read(response.read()), nearest(large, COLORS))
