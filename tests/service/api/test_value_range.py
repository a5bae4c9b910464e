"""Images with more than 8 bits: the model's value range applies on every route, and without one the answer is 415."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from fastapi.testclient import TestClient

from tests.service.conftest import encoded, read, serve, settings_maker
from tests.service.tiny_bundle import write_bundle, zipped

VALUES = np.array([[0, 4000, 100, 3900], [-9, 9e9, 500, 3500]], np.float32)
FLOATS = encoded(VALUES, "TIFF")
# Ids of the classes "black" and "white".
MASK = [[3, 4, 3, 4], [3, 4, 3, 4]]
MODEL = "20260101T000000-aaaaaaaa"


@pytest.fixture(scope="module")
def declared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A service whose model declares the range 0 to 4000."""
    folder = tmp_path_factory.mktemp("declared")
    with serve(settings_maker(folder, write_bundle(folder / "bundle", value_range=[0, 4000]))()) as ready:
        yield ready


def segment(client: TestClient) -> Any:
    return client.post("/v1/segment", content=FLOATS)


def contribute(client: TestClient) -> Any:
    return client.post("/v1/segment?contribute=true", content=FLOATS)


def add(client: TestClient) -> Any:
    return client.post("/v1/images", content=FLOATS)


def infer(client: TestClient) -> Any:
    data = {"name": "image_bytes", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(FLOATS).decode()]}
    return client.post("/v2/models/tiny_encoded/infer", json={"inputs": [data]})


def batch(client: TestClient) -> Any:
    return client.post("/v1/segment/batch", files=[("file", ("a.tif", FLOATS, "image/tiff"))])


Call = Callable[[TestClient], Any]


def test_floats_are_segmented_by_the_range_of_the_model(declared: TestClient) -> None:
    assert read(segment(declared).content).tolist() == MASK
    answer = infer(declared)
    assert read(base64.b64decode(answer.json()["outputs"][0]["data"][0])).tolist() == MASK


@pytest.mark.parametrize("call", [contribute, add])
def test_pool_takes_floats_if_the_model_declares_a_range(call: Call, declared: TestClient) -> None:
    assert call(declared).status_code in (200, 201)


def test_pool_takes_only_images_that_the_active_model_can_read(shared_client: TestClient, tmp_path: Path) -> None:
    """A run takes the range of the active model, so it would fail on them."""
    other = write_bundle(tmp_path / "other", version="20260102T000000-bbbbbbbb", value_range=[0, 4000])
    assert shared_client.post("/v1/models", content=zipped(other)).status_code == 201
    answer = shared_client.post(
        "/v1/segment", params={"contribute": True, "model": "20260102T000000-bbbbbbbb"}, content=FLOATS
    )
    assert (answer.status_code, answer.headers["X-Image-Error"]) == (200, "image-unsupported")
    assert read(answer.content).tolist() == MASK
    assert shared_client.get("/v1/images").json()["images"] == []


def test_batch_applies_the_range(declared: TestClient) -> None:
    line = json.loads(batch(declared).text)
    assert line["status"] == 200
    assert {entry["name"]: entry["pixels"] for entry in line["result"]["classes"]} == {"black": 4, "white": 4}


@pytest.mark.parametrize("call", [segment, contribute, add])
def test_floats_get_415_with_the_remedy_without_a_range(call: Call, shared_client: TestClient) -> None:
    answer = call(shared_client)
    assert (answer.status_code, answer.json()["type"].rpartition(":")[2]) == (415, "image-unsupported")
    assert "The pixels are 32-bit floats" in answer.json()["detail"]
    assert "data.range = [BLACK, WHITE]" in answer.json()["detail"]
    assert shared_client.get("/v1/images").json()["images"] == []


def test_batch_and_v2_report_the_missing_range(shared_client: TestClient) -> None:
    line = json.loads(batch(shared_client).text)
    assert (line["status"], "data.range" in line["problem"]["detail"]) == (415, True)
    answer = infer(shared_client)
    assert answer.status_code >= 400
    assert "data.range" in answer.json()["error"]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_12_bit_numbers_in_16_bits_get_a_warning_without_a_range(
    kind: str, declared: TestClient, shared_client: TestClient
) -> None:
    def warning(client: TestClient, values: npt.NDArray[Any]) -> str | None:
        answer = client.post("/v1/segment", content=encoded(values, kind))
        assert answer.status_code == 200
        return answer.headers.get("X-Image-Warning")

    numbers = np.array([[0, 300, 4095]], np.uint16)
    assert warning(shared_client, numbers) == warning(shared_client, numbers // 16) == "nearly black"
    assert warning(declared, numbers) is None
    assert warning(shared_client, numbers + 1) is None
    assert warning(shared_client, np.array([[0, 9, 15]], np.uint8)) is None


def test_model_document_states_the_range(declared: TestClient, shared_client: TestClient) -> None:
    found: list[Any] = [client.get(f"/v1/models/{MODEL}").json()["value_range"] for client in (declared, shared_client)]
    assert found == [[0, 4000], None]


def test_8_bit_images_are_not_scaled(declared: TestClient, shared_client: TestClient) -> None:
    image = encoded(np.array([[0, 90, 200, 255]], np.uint8))
    masks = [read(client.post("/v1/segment", content=image).content).tolist() for client in (declared, shared_client)]
    assert masks[0] == masks[1] == [[3, 3, 4, 4]]
