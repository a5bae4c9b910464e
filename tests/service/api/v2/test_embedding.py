"""The embedding as an output of both kinds of model, and in the description of a version."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from tests.service.conftest import serve, settings_maker
from tests.service.tiny_bundle import mean_color, picture, write_bundle

SPEC = {"name": "embedding", "datatype": "FP16", "shape": [-1, 3]}


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("embedder")
    with serve(settings_maker(folder, write_bundle(folder / "bundle", embedding=True))()) as ready:
        yield ready


def infer(client: TestClient, model: str, source: dict[str, Any], *outputs: str, binary: bool = False) -> Any:
    wanted = [{"name": name, "parameters": {"binary_data": binary}} for name in outputs]
    response = client.post(f"/v2/models/{model}/infer", json={"inputs": [source], "outputs": wanted})
    assert response.status_code == 200, response.text
    return response


def tensor(*images: np.ndarray) -> dict[str, Any]:
    batch = np.stack(images)
    return {"name": "image", "datatype": "UINT8", "shape": list(batch.shape), "data": batch.reshape(-1).tolist()}


def png(image_HW3: np.ndarray) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(image_HW3).save(sink, "PNG")
    return sink.getvalue()


@pytest.mark.parametrize("model", ["seg", "seg_bytes", "tiny", "tiny_encoded"])
def test_metadata_and_configuration_list_the_output(embedder: TestClient, model: str) -> None:
    assert embedder.get(f"/v2/models/{model}").json()["outputs"][2] == SPEC
    found = embedder.get(f"/v2/models/{model}/config").json()["output"][2]
    assert (found["name"], found["data_type"], found["dims"][-1]) == ("embedding", "TYPE_FP16", 3)


def test_json_has_the_numbers(embedder: TestClient) -> None:
    images = [picture(seed=seed) for seed in range(3)]
    (output,) = infer(embedder, "seg", tensor(*images), "embedding").json()["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("embedding", "FP16", [3, 3])
    expected = np.stack([mean_color(image) for image in images])
    np.testing.assert_allclose(np.reshape(output["data"], (3, 3)), expected, atol=1e-3)


def test_binary_form_has_two_bytes_for_each_number(embedder: TestClient) -> None:
    response = infer(embedder, "seg", tensor(picture()), "mask", "embedding", binary=True)
    length = int(response.headers["Inference-Header-Content-Length"])
    vector_D = np.frombuffer(response.content[-6:], "<f2")
    assert len(response.content) == length + 30 * 40 + 6
    np.testing.assert_allclose(vector_D, mean_color(picture()), atol=1e-3)


def test_encoded_image_gets_its_embedding(embedder: TestClient) -> None:
    data = png(picture())
    headers = {"Inference-Header-Content-Length": "0"}
    response = embedder.post("/v2/models/seg_bytes/infer", content=data, headers=headers)
    assert response.status_code == 200
    np.testing.assert_allclose(np.frombuffer(response.content[-6:], "<f2"), mean_color(picture()), atol=1e-3)
    length = int(response.headers["Inference-Header-Content-Length"])
    (mask_bytes,) = struct.unpack_from("<I", response.content, length)
    assert response.content[length + 4 :][:8] == b"\x89PNG\r\n\x1a\n"
    assert length + 4 + mask_bytes + 4 + 6 == len(response.content), "mask, mean confidence, embedding"


def test_version_states_the_length(embedder: TestClient, shared_client: TestClient) -> None:
    for client, expected in ((embedder, 3), (shared_client, None)):
        (version,) = client.get("/v1/models").json()["models"]
        assert client.get(f"/v1/models/{version['version']}").json()["embedding"] == expected


def test_model_without_embedding_does_not_list_it(shared_client: TestClient) -> None:
    names = [output["name"] for output in shared_client.get("/v2/models/seg").json()["outputs"]]
    assert names == ["mask", "confidence"]
    body = {"inputs": [tensor(picture())], "outputs": [{"name": "embedding"}]}
    response = shared_client.post("/v2/models/seg/infer", json=body)
    assert response.status_code == 400
    assert "no output 'embedding'" in response.json()["error"]


def test_segment_answers_the_same_with_and_without_embedding(embedder: TestClient, shared_client: TestClient) -> None:
    for accept in ("image/png", "application/json"):
        answers = [
            client.post("/v1/segment", content=png(picture()), headers={"Accept": accept, "Content-Type": "image/png"})
            for client in (embedder, shared_client)
        ]
        assert answers[0].content == answers[1].content
