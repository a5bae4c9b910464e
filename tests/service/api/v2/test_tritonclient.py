"""Triton's client library, blocking and asynchronous, against a real service."""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tritonclient.http as blocking
import tritonclient.http.aio as asynchronous
from tritonclient.utils import InferenceServerException

from tests.service.api.v2.conftest import FIRST, IMAGE, PNG, SECOND, Server
from tests.service.conftest import TEST_KEY, encoded, read
from tests.service.tiny_bundle import COLORS, nearest, picture

Array = npt.NDArray[Any]


@pytest.fixture
def client(server: Server) -> Iterator[blocking.InferenceServerClient]:
    opened = blocking.InferenceServerClient(server.address, concurrency=4)
    yield opened
    opened.close()


def tensor(images: Array, *, binary: bool = True) -> blocking.InferInput:
    input_ = blocking.InferInput("image", list(images.shape), "UINT8")
    input_.set_data_from_numpy(images, binary_data=binary)
    return input_


def files(*contents: bytes, shape: tuple[int, ...] = (-1,)) -> blocking.InferInput:
    array = np.array(contents, dtype=np.object_).reshape(shape)
    input_ = blocking.InferInput("image_bytes", list(array.shape), "BYTES")
    input_.set_data_from_numpy(array)
    return input_


def by_v1(server: Server, data: bytes) -> Array:
    """Return the mask from /v1/segment."""
    connection = http.client.HTTPConnection(server.address, timeout=30)
    connection.request("POST", "/v1/segment", data)
    mask = read(connection.getresponse().read())
    connection.close()
    return mask


def test_server_and_models_are_ready(client: blocking.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.get_server_metadata()["name"] == "maskloop"
    for model in ("seg", "seg_bytes", "tiny", "tiny_encoded"):
        assert client.is_model_ready(model)
        assert client.is_model_ready(model, "1")
        metadata = client.get_model_metadata(model)
        assert metadata["name"] == model
        assert metadata["versions"] == ["1", "2"]
        assert client.get_model_metadata(model, "2") == metadata
    assert not client.is_model_ready("nothing")
    assert not client.is_model_ready("seg", "7")


def test_metadata_and_config_describe_the_tensors(client: blocking.InferenceServerClient) -> None:
    metadata = client.get_model_metadata("tiny")
    assert metadata["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}]
    assert metadata["outputs"] == [
        {"name": "mask", "datatype": "UINT8", "shape": [-1, -1, -1]},
        {"name": "confidence", "datatype": "UINT8", "shape": [-1, -1, -1]},
    ]
    config = client.get_model_config("tiny", "1")
    assert config["platform"] == metadata["platform"] == "onnxruntime_onnx"
    assert config["max_batch_size"] == 64
    assert config["input"] == [{"name": "image", "data_type": "TYPE_UINT8", "dims": [-1, -1, 3]}]
    assert config["parameters"]["version_2"] == {"string_value": SECOND}
    encoded_config = client.get_model_config("tiny_encoded")
    assert encoded_config["input"] == [{"name": "image_bytes", "data_type": "TYPE_STRING", "dims": [-1]}]
    assert encoded_config["max_batch_size"] == 0


@pytest.mark.parametrize("model", ["seg", "tiny"])
@pytest.mark.parametrize("binary", [True, False])
def test_tensors_are_segmented(
    client: blocking.InferenceServerClient, server: Server, model: str, binary: bool
) -> None:
    requested = [blocking.InferRequestedOutput(name, binary_data=binary) for name in ("mask", "confidence")]
    response = client.infer(model, [tensor(IMAGE[None], binary=binary)], outputs=requested, request_id="seven")
    mask = response.as_numpy("mask")
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask[0], by_v1(server, PNG))
    np.testing.assert_array_equal(mask[0], nearest(IMAGE, COLORS))
    assert response.as_numpy("confidence").shape == mask.shape
    assert response.as_numpy("confidence").max() > 100
    fields = response.get_response()
    assert (fields["id"], fields["model_name"], fields["model_version"]) == ("seven", model, "1")
    assert fields["parameters"] == {"bundle_version": FIRST}


def test_batch_keeps_its_order(client: blocking.InferenceServerClient) -> None:
    images = np.stack([picture(seed=seed) for seed in range(20)])
    masks = client.infer("seg", [tensor(images)]).as_numpy("mask")
    for image, mask in zip(images, masks, strict=True):
        np.testing.assert_array_equal(mask, nearest(image, COLORS))


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_encoded_images_are_segmented(
    client: blocking.InferenceServerClient, server: Server, shape: tuple[int, ...]
) -> None:
    """A list of images, or as in Triton a batch of lists of one image."""
    contents = [encoded(picture(40 + seed, 30, seed)) for seed in range(9)]
    response = client.infer("tiny_encoded", [files(*contents, shape=shape)])
    pngs = response.as_numpy("mask_png")
    assert pngs.shape == np.empty(9).reshape(shape).shape
    for content, png in zip(contents, pngs.reshape(-1), strict=True):
        np.testing.assert_array_equal(read(png), by_v1(server, content))
    confidences = response.as_numpy("mean_confidence")
    assert confidences.dtype == np.float32
    assert confidences.shape == pngs.shape
    assert ((confidences > 0.2) & (confidences <= 1)).all()


@pytest.mark.parametrize("request_encoding", ["gzip", "deflate", None])
@pytest.mark.parametrize("response_encoding", ["gzip", "deflate", None])
def test_requests_and_responses_may_be_compressed(
    client: blocking.InferenceServerClient, request_encoding: str | None, response_encoding: str | None
) -> None:
    response = client.infer(
        "seg",
        [tensor(IMAGE[None])],
        request_compression_algorithm=request_encoding,
        response_compression_algorithm=response_encoding,
    )
    np.testing.assert_array_equal(response.as_numpy("mask")[0], nearest(IMAGE, COLORS))


@pytest.mark.parametrize("version", ["2", SECOND])
def test_version_is_selected_by_number_and_by_name(client: blocking.InferenceServerClient, version: str) -> None:
    response = client.infer("tiny", [tensor(IMAGE[None])], model_version=version)
    np.testing.assert_array_equal(response.as_numpy("mask")[0], nearest(IMAGE, COLORS[::-1]))
    assert response.get_response()["model_version"] == "2"


def test_repository_calls(client: blocking.InferenceServerClient) -> None:
    def states() -> dict[tuple[str, str], str]:
        return {(one["name"], one["version"]): one["state"] for one in client.get_model_repository_index()}

    client.infer("seg", [tensor(IMAGE[None])], model_version="2")
    assert states() == {
        (name, version): "READY" for name in ("seg", "seg_bytes", "tiny", "tiny_encoded") for version in "12"
    }
    key = {"X-API-Key": TEST_KEY}
    with pytest.raises(InferenceServerException, match="active"):
        client.unload_model("seg", headers=key)
    client.load_model("seg", headers=key)
    assert client.is_model_ready("seg", "2")
    with pytest.raises(InferenceServerException, match="upload a bundle"):
        client.load_model("seg", config='{"backend": "python"}', headers=key)
    with pytest.raises(InferenceServerException, match="upload a bundle"):
        client.load_model("seg", config="{}", files={"file:1/model.py": b"import os"}, headers=key)
    with pytest.raises(InferenceServerException, match="no model"):
        client.load_model("nothing", headers=key)


def test_statistics_count_images_and_nanoseconds(client: blocking.InferenceServerClient) -> None:
    def stats_of(model: str) -> Any:
        (stats,) = client.get_inference_statistics(model, "1")["model_stats"]
        return stats

    before = stats_of("tiny")
    client.infer("tiny", [tensor(np.stack([IMAGE] * 3))])
    with pytest.raises(InferenceServerException):
        client.infer("tiny", [tensor(IMAGE[None, :, :, :2].copy())])
    after = stats_of("tiny")
    assert after["inference_count"] - before["inference_count"] == 3
    assert after["execution_count"] - before["execution_count"] == 3
    assert after["last_inference"] > 1_700_000_000_000
    stats, old = after["inference_stats"], before["inference_stats"]
    assert stats["fail"]["count"] - old["fail"]["count"] == 1
    for stage in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        assert stats[stage]["count"] - old[stage]["count"] == 1
        assert stats[stage]["ns"] > old[stage]["ns"]
    parts = sum(stats[stage]["ns"] for stage in ("compute_input", "compute_infer", "compute_output"))
    assert parts > 10_000
    (batch,) = after["batch_stats"]
    assert batch["batch_size"] == 1
    assert batch["compute_infer"]["count"] == after["execution_count"]
    all_stats = client.get_inference_statistics()["model_stats"]
    assert {one["name"] for one in all_stats} == {"seg", "seg_bytes", "tiny", "tiny_encoded"}


def test_async_infer_with_parameters(client: blocking.InferenceServerClient) -> None:
    handles = [
        client.async_infer("seg", [tensor(IMAGE[None])], priority=1, timeout=30_000_000, parameters={"custom": "x"})
        for _ in range(4)
    ]
    for handle in handles:
        np.testing.assert_array_equal(handle.get_result().as_numpy("mask")[0], nearest(IMAGE, COLORS))


def test_passed_deadline_gets_504(client: blocking.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="timeout of") as passed:
        client.infer("seg", [tensor(IMAGE[None])], timeout=1)
    assert passed.value.status() == "504"
    with pytest.raises(InferenceServerException, match="timeout of"):
        client.infer("seg", [tensor(np.stack([IMAGE] * 64))], headers={"X-Request-Timeout-Ms": "1"})
    # The earlier deadline counts.
    with pytest.raises(InferenceServerException, match="timeout of"):
        client.infer("seg", [tensor(IMAGE[None])], timeout=1, headers={"X-Request-Timeout-Ms": "60000"})


def test_client_parses_errors(client: blocking.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="no model 'nothing'") as missing:
        client.infer("nothing", [tensor(IMAGE[None])])
    assert missing.value.status() == "404"
    with pytest.raises(InferenceServerException, match="sequence_id"):
        client.infer("seg", [tensor(IMAGE[None])], sequence_id=3)
    requested = [blocking.InferRequestedOutput("mask", class_count=3)]
    with pytest.raises(InferenceServerException, match="Classification") as classified:
        client.infer("seg", [tensor(IMAGE[None])], outputs=requested)
    assert classified.value.status() == "501"
    shared = blocking.InferInput("image", [1, 30, 40, 3], "UINT8")
    shared.set_shared_memory("region", 3600)
    with pytest.raises(InferenceServerException, match="Shared memory"):
        client.infer("seg", [shared])


def test_unsupported_extension_gets_501(client: blocking.InferenceServerClient) -> None:
    for call in (
        client.get_system_shared_memory_status,
        client.get_cuda_shared_memory_status,
        client.get_trace_settings,
        client.get_log_settings,
        lambda: client.get_trace_settings("seg"),
        lambda: client.register_system_shared_memory("a", "/a", 10),
        lambda: client.update_log_settings({"log_verbose_level": 1}),
    ):
        with pytest.raises(InferenceServerException, match="not supported") as rejected:
            call()
        assert rejected.value.status() == "501"


async def test_asynchronous_client(server: Server) -> None:
    async with asynchronous.InferenceServerClient(server.address) as client:
        assert await client.is_server_ready()
        assert await client.is_model_ready("seg_bytes")
        assert (await client.get_model_metadata("seg"))["name"] == "seg"
        responses = await asyncio.gather(
            *(
                client.infer(
                    "seg_bytes",
                    [files(PNG)],
                    request_compression_algorithm=algorithm,
                    response_compression_algorithm=algorithm,
                )
                for algorithm in (None, "gzip", "deflate")
            )
        )
        for response in responses:
            np.testing.assert_array_equal(read(response.as_numpy("mask_png")[0]), nearest(IMAGE, COLORS))
        tensors = await client.infer("seg", [tensor(IMAGE[None], binary=False)])
        np.testing.assert_array_equal(tensors.as_numpy("mask")[0], nearest(IMAGE, COLORS))
        assert len(await client.get_model_repository_index()) == 8
        assert (await client.get_inference_statistics("seg"))["model_stats"]
        with pytest.raises(InferenceServerException, match="no model"):
            await client.infer("nothing", [tensor(IMAGE[None])])
