"""Malformed forms are parsed or rejected, never a fault."""

from __future__ import annotations

from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.service.conftest import encoded
from tests.service.tiny_bundle import picture

DATA = encoded(picture(20, 10))
PART = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
FORM = PART + DATA + b"\r\n" + PART + DATA + b"\r\n--x--\r\n"
FRAGMENTS = [
    b"\r\n",
    b"--x",
    b"--x--",
    b'name="',
    b"filename*=utf-8''a",
    b"charset=none",
    b": ",
    b"\x00",
    b"\xff",
    DATA,
]
PATHS = ["/v1/segment", "/v1/segment/batch", "/v1/images", "/v1/images/batch"]
TYPES = [
    "multipart/form-data",
    "Multipart/Form-Data",
    "multipart/form-data; boundary",
    "multipart/form-data; boundary=",
]


@st.composite
def malformed_forms(draw: st.DrawFn) -> bytes:
    body = FORM
    for _ in range(draw(st.integers(1, 4))):
        at, end = sorted(draw(st.tuples(*[st.integers(0, len(body))] * 2)))
        fragment = draw(st.one_of(st.sampled_from(FRAGMENTS), st.binary(max_size=8)))
        body = body[:at] + fragment + (body[at:] if draw(st.booleans()) else body[end:])
    return body


def content_types() -> st.SearchStrategy[str]:
    parameters = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)
    return st.one_of(
        st.just("multipart/form-data; boundary=x"),
        st.sampled_from(TYPES),
        st.builds("multipart/form-data; boundary=x; charset={}".format, parameters),
        st.builds("multipart/form-data; {}".format, parameters),
    )


def test_malformed_form_is_never_a_fault(client: TestClient) -> None:
    @given(
        malformed_forms(),
        content_types(),
        st.sampled_from(PATHS),
    )
    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    def try_one(body: bytes, content_type: str, path: str) -> None:
        response = client.post(path, content=body, headers={"Content-Type": content_type})
        assert response.status_code < 500, response.text
        if response.status_code >= 400:
            assert response.headers["content-type"] == "application/problem+json"
        elif path.endswith("batch"):
            assert '"status":500' not in response.text

    try_one()
    assert "_admitted 1.0" not in client.get("/metrics").text


def test_file_in_a_part_of_another_name_is_rejected_and_not_ignored(client: TestClient) -> None:
    answer = client.post("/v1/images/batch", files=[("file", DATA), ("files[]", DATA)])
    assert answer.status_code == 400
    assert "parts named files[]: send each as a part named `file`" in answer.json()["detail"]
