"""How bodies come in: where they wait, how many at a time, and what leaves the house about it."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from service.errors import Overloaded, names_only
from service.metrics import Metrics
from service.segmentation.admission.admission_gate import AdmissionGate
from service.state import State
from tests.service.conftest import MakeSettings, encoded, sample, serve
from tests.service.tiny_bundle import picture, write_bundle, zipped

FORM_HEAD = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
FORM = {"Content-Type": "multipart/form-data; boundary=x"}


def as_body(data: bytes) -> dict[str, Any]:
    return {"content": data}


def as_form(data: bytes) -> dict[str, Any]:
    return {"files": {"file": ("a.zip", data)}}


@pytest.mark.parametrize("sent", [as_body, as_form])
def test_nothing_needs_the_systems_temporary_folder(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: Callable[[bytes], dict[str, Any]]
) -> None:
    """In a container it is a few megabytes of memory, if it can be written at all."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    noise = np.random.default_rng(0).integers(0, 256, (800, 1000, 3), dtype=np.uint8)
    assert len(encoded(noise)) > 2_000_000
    assert client.post("/v1/segment", **sent(encoded(noise))).status_code == 200
    assert client.post("/v1/images", **sent(encoded(noise))).status_code == 201
    # A form's file of more than a megabyte used to leave memory for that folder.
    folder = write_bundle(tmp_path / "large", version="large")
    (folder / "MODEL_CARD.md").write_bytes(np.random.default_rng(0).bytes(3_000_000))
    assert client.post("/v1/models", **sent(zipped(folder))).status_code == 201


def test_what_a_killed_process_left_behind_goes(make_settings: MakeSettings) -> None:
    settings = make_settings()
    left = settings.tmp_dir / "bundle-of-a-killed-process" / "model.onnx"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"x")
    with serve(settings) as client:
        assert client.get("/readyz").status_code == 200
        assert list(settings.tmp_dir.iterdir()) == []


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (FORM_HEAD + b"x", "named `file`"),
        (b"nonsense", "form cannot be read|named `file`"),
        (b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n--x--\r\n', "named `file`"),
        ((FORM_HEAD + b"x\r\n") * 2 + b"--x--\r\n", "Too many files"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/segment", "/v1/images", "/v1/models"])
def test_broken_forms_are_told_what_to_do(client: TestClient, path: str, body: bytes, says: str) -> None:
    response = client.post(path, content=body, headers=FORM)
    assert 400 <= response.status_code < 500
    assert response.headers["content-type"] == "application/problem+json"
    if path != "/v1/models":
        assert any(part in response.json()["detail"] for part in says.split("|"))


def test_an_image_that_costs_too_much_is_refused_with_the_size_that_would_do(make_settings: MakeSettings) -> None:
    # The probe's images have up to 768 pixels, and the tiny model tells 5 classes apart.
    with serve(make_settings(max_inference_bytes=(12 + 16 * 5 + 256) * 800)) as client:
        assert client.post("/v1/segment", content=encoded(picture(40, 20))).status_code == 200
        response = client.post("/v1/segment", content=encoded(picture(40, 30)))
        assert response.status_code == 413
        assert response.json()["type"] == "urn:maskloop:problem:image-too-large"
        assert "scale the image down to 32x24" in response.json()["detail"]
        assert "MASKLOOP_MAX_INFERENCE_BYTES" in response.json()["detail"]


def test_a_door_lets_so_many_in_and_tells_the_next() -> None:
    metrics = Metrics()
    gate = AdmissionGate(2, metrics.uploads_admitted, metrics.uploads_refused)

    async def scene() -> None:
        async with gate.admit(), gate.admit():
            with pytest.raises(Overloaded) as told:
                async with gate.admit():
                    pass
            assert told.value.retry_after_s == 1
        async with gate.admit():
            pass

    asyncio.run(scene())
    assert sample(metrics, "maskloop_uploads_refused_total") == 1
    assert sample(metrics, "maskloop_uploads_admitted") == 0


def test_every_request_gives_its_place_back(make_settings: MakeSettings) -> None:
    with serve(make_settings(max_concurrent_requests=1)) as client:
        exif = Image.Exif()
        for path in ("/v1/segment", "/v1/images"):
            for content in (b"", b"no image", encoded(picture()), encoded(picture(), exif=exif)):
                assert client.post(path, content=content).status_code < 500
        text = client.get("/metrics").text
        assert "maskloop_segment_admitted 0.0" in text
        assert "maskloop_uploads_admitted 0.0" in text


def test_methods_that_nobody_knows_make_no_labels(client: TestClient) -> None:
    for method in ("BREW", "X" * 40, "GET"):
        client.request(method, "/v1/images")
    text = client.get("/metrics").text
    assert 'method="other"' in text
    assert "BREW" not in text
    assert "XXXX" not in text
    assert 'method="GET",route="/v1/images"' in text


def test_a_lost_file_is_told_with_the_way_to_mend_it(client: TestClient) -> None:
    data, state = encoded(picture()), client.app_state["maskloop"]
    assert isinstance(state, State)
    image_id = client.post("/v1/images", content=data).json()["id"]
    mask = encoded(np.zeros((30, 40), np.uint8))
    client.put(f"/v1/images/{image_id}/mask", content=mask)
    for path in (state.images.path(image_id), state.images.mask_path(image_id)):
        path.unlink()
    for part in ("content", "mask"):
        response = client.get(f"/v1/images/{image_id}/{part}")
        assert response.status_code == 500
        assert response.json()["type"] == "urn:maskloop:problem:file-lost"
        assert "again" in response.json()["detail"]
    # As it says.
    assert client.post("/v1/images", content=data).status_code == 200
    assert client.get(f"/v1/images/{image_id}/content").content == data
    client.put(f"/v1/images/{image_id}/mask", content=mask)
    assert client.get(f"/v1/images/{image_id}/mask").status_code == 200


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Load model from /data/models/x/model.onnx failed", "Load model from model.onnx failed"),
        (
            "$ /opt/bin/python -m trainer train /d/r/recipe.toml --out /d/r/train",
            "$ python -m trainer train recipe.toml --out train",
        ),
        ('File "/opt/lib/x.py", line 3', 'File "x.py", line 3'),
        ("root=/data/pool/images", "root=images"),
        ("POST /v1/models/VERSION/activate, or PUT /v1/images/ID/mask", None),
        ("send image/png; see http://127.0.0.1:8000/docs/index.html and /docs", None),
        ("3/4 of 10/20", None),
    ],
)
def test_folders_of_this_machine_stay_here(text: str, left: str | None) -> None:
    assert names_only(text) == (left or text)


def test_problems_name_no_folders(make_settings: MakeSettings) -> None:
    settings = make_settings()
    with serve(settings) as client:
        state: State = client.app_state["maskloop"]
        version = client.get("/readyz").json()["model"]
        (state.models.bundle(version).folder / "manifest.json").unlink()
        response = client.get(f"/v1/models/{version}")
        assert response.status_code == 422
        assert str(settings.data_dir) not in response.text
