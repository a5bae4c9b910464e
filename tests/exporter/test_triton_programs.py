"""The programs for Triton's Python backend: same rules as trainer and service, responses worked out by hand.

Triton's own module exists only inside its server, so a stand-in provides the few names that the programs use;
test_triton_server.py runs them in a real server.
"""

import asyncio
import io
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from exporter.probe import scene
from exporter.runtime import OnnxPredictor
from exporter.triton.programs import encoded, tensor
from service.errors import ImageTooLarge
from service.segmentation import decode as service
from service.segmentation.output.class_table import ClassTable
from service.segmentation.output.png import mask_png
from tests.contract.image_files import RGB
from tests.contract.image_files import encoded as file_of
from tests.contract.test_decoding import LIMITS
from tests.exporter.conftest import COLORS, GOLDEN, NAMES

CLASSES = [{"id": number, "name": name, "color": COLORS[number]} for number, name in enumerate(NAMES)]


def decode(data: bytes) -> npt.NDArray[np.uint8]:
    return encoded.decode(data, LIMITS.max_bytes, LIMITS.max_pixels)


def test_main_image_of_a_multi_picture_jpeg_is_used() -> None:
    data = file_of(RGB, "MPO", save_all=True, append_images=[RGB.rotate(180)])
    assert np.array_equal(decode(data), service.decode(data, LIMITS).image_HW3)


def test_too_many_pixels_are_rejected_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    data = file_of(Image.new("RGB", (1001, 1000)), "PNG")
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("decoded"))
    with pytest.raises(encoded.InvalidImageError, match=r"1001x1000 pixels and 1000000 are allowed"):
        encoded.decode(data, 2**20, 10**6)
    with pytest.raises(ImageTooLarge):
        service.decode(data, service.Limits(2**20, 10**6))


def test_more_pixels_than_pillows_own_limit_are_rejected() -> None:
    data = bytearray(file_of(RGB, "BMP"))
    data[18:26] = (2**15).to_bytes(4, "little") * 2
    with pytest.raises(encoded.InvalidImageError, match=r"far more pixels"):
        decode(bytes(data))


def test_too_many_bytes_are_rejected() -> None:
    with pytest.raises(encoded.InvalidImageError, match="has 11 bytes and 10 are allowed"):
        encoded.decode(b"x" * 11, 10, 10**6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png_equals_the_services(dtype: type[np.unsignedinteger[Any]]) -> None:
    mask_HW = np.random.default_rng(0).integers(0, 5, (30, 40)).astype(dtype)
    ours = encoded.mask_png(mask_HW, encoded.palette(CLASSES))
    assert ours == mask_png(mask_HW, ClassTable(NAMES, COLORS, 255))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(ours))), mask_HW)


# The tests below run the models with a stand-in for Triton's module.


@dataclass
class StandInTensor:
    name: str
    array: npt.NDArray[Any]

    def as_numpy(self) -> npt.NDArray[Any]:
        return self.array


class StandInError:
    INTERNAL, INVALID_ARG, UNAVAILABLE = range(3)

    def __init__(self, message: str, code: int = INTERNAL) -> None:
        self._message, self._code = message, code

    def message(self) -> str:
        return self._message

    def code(self) -> int:
        return self._code


class StandInResponse:
    def __init__(self, output_tensors: list[StandInTensor] | None = None, error: StandInError | None = None) -> None:
        self.tensors, self._error = {value.name: value for value in output_tensors or ()}, error

    def has_error(self) -> bool:
        return self._error is not None

    def error(self) -> StandInError | None:
        return self._error


Answer = Callable[[npt.NDArray[np.uint8]], StandInResponse]


def stand_in(answer: Answer) -> SimpleNamespace:
    """Triton's module, with `answer` as the tensor model."""

    class Request:
        def __init__(self, *, inputs: list[StandInTensor], **rest: Any) -> None:
            (self.image,) = inputs
            assert rest["model_name"] == "places"
            assert rest["requested_output_names"] == ["mask"]
            assert rest["preferred_memory"] == ("CPU", 0)

        async def async_exec(self) -> StandInResponse:
            return answer(self.image.array)

    return SimpleNamespace(
        Tensor=StandInTensor,
        TritonError=StandInError,
        InferenceResponse=StandInResponse,
        InferenceRequest=Request,
        PreferredMemory=lambda *place: place,
        TRITONSERVER_MEMORY_CPU="CPU",
        get_input_tensor_by_name=lambda request, name: request[name],
        get_output_tensor_by_name=lambda response, name: response.tensors[name],
    )


def brightness(image_1HW3: npt.NDArray[np.uint8]) -> StandInResponse:
    """A tensor model whose masks are easy to compute: the red channel divided by 64."""
    mask_1HW = image_1HW3[..., 0] // 64
    return StandInResponse([StandInTensor("mask", mask_1HW)])


def execute(
    monkeypatch: pytest.MonkeyPatch, answer: Answer, *requests: list[bytes], **more: str
) -> list[StandInResponse]:
    """Run the encoded model on requests of one or more files each, with `more` parameters."""
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", stand_in(answer))
    parameters = {
        "tensor_model": "places",
        "max_image_bytes": str(LIMITS.max_bytes),
        "max_image_pixels": str(LIMITS.max_pixels),
        "classes": json.dumps(CLASSES),
        **more,
    }
    config = {"parameters": {key: {"string_value": value} for key, value in parameters.items()}}
    model = encoded.TritonPythonModel()
    model.initialize({"model_config": json.dumps(config)})
    arrays = [np.array(files, dtype=np.object_).reshape(-1, 1) for files in requests]
    responses: list[StandInResponse] = asyncio.run(
        model.execute([{"image_bytes": StandInTensor("image_bytes", array)} for array in arrays])
    )
    return responses


def masks(response: StandInResponse) -> list[npt.NDArray[Any]]:
    assert not response.has_error()
    pngs = response.tensors["mask_png"].as_numpy()
    assert pngs.shape == (len(pngs), 1)
    return [np.asarray(Image.open(io.BytesIO(png))) for png in pngs[:, 0]]


def photograph(seed: int) -> tuple[bytes, npt.NDArray[np.uint8]]:
    """A PNG file and the mask of `brightness` for it."""
    image_HW3 = scene(20 + seed, 30, seed)
    return file_of(Image.fromarray(image_HW3), "PNG"), image_HW3[..., 0] // 64


def test_responses_are_in_the_order_of_the_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    files, expected = zip(*map(photograph, range(4)), strict=True)
    responses = execute(monkeypatch, brightness, [files[0]], [files[1], files[2]], [files[3]])
    found = [mask_HW for response in responses for mask_HW in masks(response)]
    assert [len(masks(response)) for response in responses] == [1, 2, 1]
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_invalid_image_fails_only_its_own_request(monkeypatch: pytest.MonkeyPatch) -> None:
    file, expected = photograph(0)
    good, bad, mixed, last = execute(monkeypatch, brightness, [file], [b"no image"], [file, b"nor this"], [file])
    for response in (bad, mixed):
        error = response.error()
        assert error is not None
        assert (error.code(), error.message()[:15]) == (StandInError.INVALID_ARG, "the file is not")
    assert all(np.array_equal(masks(response)[0], expected) for response in (good, last))


def test_floats_are_scaled_by_the_parameter_value_range(monkeypatch: pytest.MonkeyPatch) -> None:
    file = file_of(Image.fromarray(np.array([[0, 1024, 2048, 4096]], np.float32)), "TIFF")
    (response,) = execute(monkeypatch, brightness, [file], value_range="[0.0, 4096.0]")
    assert masks(response)[0].tolist() == [[0, 0, 1, 3]]
    (response,) = execute(monkeypatch, brightness, [file])
    error = response.error()
    assert error is not None
    assert "32-bit floats" in error.message()
    assert "data.range = [BLACK, WHITE]" in error.message()


def test_error_of_the_tensor_model_keeps_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = StandInResponse(error=StandInError("exceeds maximum queue size", StandInError.UNAVAILABLE))
    (response,) = execute(monkeypatch, lambda _: busy, [photograph(0)[0]])
    error = response.error()
    assert error is not None
    assert (error.code(), error.message()) == (StandInError.UNAVAILABLE, "places: exceeds maximum queue size")


def test_out_of_memory_fails_only_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(image_1HW3: npt.NDArray[np.uint8]) -> StandInResponse:
        if image_1HW3.shape[1] == 21:
            raise MemoryError("no more")
        return brightness(image_1HW3)

    good, bad = execute(monkeypatch, answer, [photograph(0)[0]], [photograph(1)[0]])
    error = bad.error()
    assert error is not None
    assert error.message() == "MemoryError: no more"
    assert len(masks(good)) == 1


def test_python_tensor_model_runs_requests_as_one_batch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", stand_in(brightness))
    (tmp_path / "2").mkdir()
    shutil.copyfile(GOLDEN / "model.onnx", tmp_path / "2" / "model.onnx")
    model = tensor.TritonPythonModel()
    listed = json.dumps({"output": [{"name": "mask"}, {"name": "confidence"}, {"name": "embedding"}]})
    place = {"model_repository": str(tmp_path), "model_version": "2", "model_instance_kind": "CPU"}
    model.initialize(place | {"model_config": listed})
    images = [np.stack([scene(40, 56, seed) for seed in seeds]) for seeds in ((0,), (1, 2))]
    responses = model.execute([{"image": StandInTensor("image", image_NHW3)} for image_NHW3 in images])
    predict = OnnxPredictor(GOLDEN / "model.onnx")
    for response, image_NHW3 in zip(responses, images, strict=True):
        mask_NHW, confidence_NHW, _ = predict(image_NHW3)
        assert np.mean(response.tensors["mask"].array == mask_NHW) > 0.999
        assert response.tensors["mask"].array.shape == mask_NHW.shape
        assert np.abs(response.tensors["confidence"].array.astype(int) - confidence_NHW).max() <= 1
        assert set(response.tensors) == {"mask", "confidence"}, "this graph has no embedding"


@pytest.mark.parametrize("listed", [True, False], ids=["listed in config.pbtxt", "not listed"])
def test_python_tensor_model_returns_the_embedding_that_the_configuration_lists(
    listed: bool, vit_bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", stand_in(brightness))
    (tmp_path / "1").mkdir()
    shutil.copyfile(vit_bundle / "model.onnx", tmp_path / "1" / "model.onnx")
    names = ["mask", "confidence", *(["embedding"] if listed else [])]
    model = tensor.TritonPythonModel()
    place = {"model_repository": str(tmp_path), "model_version": "1", "model_instance_kind": "CPU"}
    model.initialize(place | {"model_config": json.dumps({"output": [{"name": name} for name in names]})})
    image_NHW3 = np.stack([scene(40, 56, seed) for seed in range(3)])
    requests = [{"image": StandInTensor("image", part)} for part in (image_NHW3[:1], image_NHW3[1:])]
    first, second = model.execute(requests)
    assert list(first.tensors) == names
    if listed:
        expected_ND = OnnxPredictor(vit_bundle / "model.onnx")(image_NHW3).embedding
        found_ND = np.concatenate([each.tensors["embedding"].array for each in (first, second)])
        assert found_ND.dtype == np.float16
        np.testing.assert_allclose(found_ND.astype(float), np.asarray(expected_ND, float), atol=2e-3)
