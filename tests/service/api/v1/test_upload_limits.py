"""Uploads: temporary files, limits on concurrency and size, and errors that name no folders."""

from __future__ import annotations

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
from tests.service.conftest import MakeSettings, blob_file, encoded, sample, serve
from tests.service.tiny_bundle import picture, write_bundle, zipped

FORM_HEAD = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
FORM = {"Content-Type": "multipart/form-data; boundary=x"}


def as_body(data: bytes) -> dict[str, Any]:
    return {"content": data}


def as_form(data: bytes) -> dict[str, Any]:
    return {"files": {"file": ("a.zip", data)}}


@pytest.mark.parametrize("arguments", [as_body, as_form])
def test_uploads_do_not_use_the_temporary_folder_of_the_system(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: Callable[[bytes], dict[str, Any]]
) -> None:
    """In a container that folder is a few megabytes of memory, or read-only."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    noise = np.random.default_rng(0).integers(0, 256, (800, 1000, 3), dtype=np.uint8)
    assert len(encoded(noise)) > 2_000_000
    assert client.post("/v1/segment", **arguments(encoded(noise))).status_code == 200
    assert client.post("/v1/images", **arguments(encoded(noise))).status_code == 201
    # The form parser would write a file of more than a megabyte to that folder.
    folder = write_bundle(tmp_path / "large", version="large")
    (folder / "MODEL_CARD.md").write_bytes(np.random.default_rng(0).bytes(3_000_000))
    assert client.post("/v1/models", **arguments(zipped(folder))).status_code == 201


def test_temporary_files_of_a_killed_process_are_deleted(make_settings: MakeSettings) -> None:
    settings = make_settings()
    leftover = settings.tmp_dir / "bundle-of-a-killed-process" / "model.onnx"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"x")
    with serve(settings) as client:
        assert client.get("/readyz").status_code == 200
        assert list(settings.tmp_dir.iterdir()) == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (FORM_HEAD + b"x", "named `file`"),
        (b"nonsense", "form cannot be read|named `file`"),
        (b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n--x--\r\n', "named `file`"),
        ((FORM_HEAD + b"x\r\n") * 2 + b"--x--\r\n", "Too many files"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/segment", "/v1/images", "/v1/models"])
def test_broken_forms_get_a_problem(client: TestClient, path: str, body: bytes, message: str) -> None:
    response = client.post(path, content=body, headers=FORM)
    assert 400 <= response.status_code < 500
    assert response.headers["content-type"] == "application/problem+json"
    if path != "/v1/models":
        assert any(part in response.json()["detail"] for part in message.split("|"))


def test_image_above_the_memory_limit_is_rejected_with_a_size_that_fits(make_settings: MakeSettings) -> None:
    # The images of the probe have up to 768 pixels, and the tiny model has 5 classes.
    with serve(make_settings(max_inference_bytes=(12 + 16 * 5 + 256) * 800)) as client:
        assert client.post("/v1/segment", content=encoded(picture(40, 20))).status_code == 200
        response = client.post("/v1/segment", content=encoded(picture(40, 30)))
        assert response.status_code == 413
        assert response.json()["type"] == "urn:maskloop:problem:image-too-large"
        assert "scale the image down to 32x24" in response.json()["detail"]
        assert "MASKLOOP_MAX_INFERENCE_BYTES" in response.json()["detail"]


async def test_uploads_above_the_limit_are_rejected() -> None:
    metrics = Metrics()
    gate = AdmissionGate(2, metrics.uploads_admitted, metrics.uploads_refused)

    async with gate.admit(), gate.admit():
        with pytest.raises(Overloaded) as rejected:
            async with gate.admit():
                pass
        assert rejected.value.retry_after_s == 1
    async with gate.admit():
        pass
    assert sample(metrics, "maskloop_uploads_refused_total") == 1
    assert sample(metrics, "maskloop_uploads_admitted") == 0


def test_every_request_frees_its_capacity(make_settings: MakeSettings) -> None:
    with serve(make_settings(max_concurrent_requests=1)) as client:
        exif = Image.Exif()
        for path in ("/v1/segment", "/v1/images"):
            for content in (b"", b"no image", encoded(picture()), encoded(picture(), exif=exif)):
                assert client.post(path, content=content).status_code < 500
        text = client.get("/metrics").text
        assert "maskloop_segment_admitted 0.0" in text
        assert "maskloop_uploads_admitted 0.0" in text


def test_unknown_methods_share_one_metric_label(client: TestClient) -> None:
    for method in ("BREW", "X" * 40, "GET"):
        client.request(method, "/v1/images")
    text = client.get("/metrics").text
    assert 'method="other"' in text
    assert "BREW" not in text
    assert "XXXX" not in text
    assert 'method="GET",route="/v1/images"' in text


def test_lost_file_gets_a_problem_with_a_remedy_that_works(client: TestClient) -> None:
    data, state = encoded(picture()), client.app_state["maskloop"]
    assert isinstance(state, State)
    image_id = client.post("/v1/images", content=data).json()["id"]
    mask = encoded(np.zeros((30, 40), np.uint8))
    client.put(f"/v1/images/{image_id}/mask", content=mask)
    blob_file(state, "images", image_id).unlink()
    blob_file(state, "masks", state.images.get(image_id).mask_sha256).unlink()
    for part in ("content", "mask"):
        response = client.get(f"/v1/images/{image_id}/{part}")
        assert response.status_code == 500
        assert response.json()["type"] == "urn:maskloop:problem:file-lost"
        assert "again" in response.json()["detail"]
    # Uploading again, as the message says, restores the files.
    assert client.post("/v1/images", content=data).status_code == 200
    assert client.get(f"/v1/images/{image_id}/content").content == data
    client.put(f"/v1/images/{image_id}/mask", content=mask)
    assert client.get(f"/v1/images/{image_id}/mask").status_code == 200


@pytest.mark.parametrize(
    ("text", "expected"),
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
def test_names_only_removes_folders_from_messages(text: str, expected: str | None) -> None:
    assert names_only(text) == (expected or text)


def test_problems_name_no_folders(make_settings: MakeSettings) -> None:
    settings = make_settings()
    with serve(settings) as client:
        state: State = client.app_state["maskloop"]
        version = client.get("/readyz").json()["model"]
        (state.models.bundle(version).folder / "manifest.json").unlink()
        response = client.get(f"/v1/models/{version}")
        assert response.status_code == 422
        assert str(settings.data_dir) not in response.text
