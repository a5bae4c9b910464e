"""config.pbtxt parsed with Triton's own schema, which tritonclient contains."""

import importlib
import importlib.metadata
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.bundle import BundleError, read_manifest
from exporter.manifest import ClassEntry
from exporter.triton.config import (
    Options,
    encoded_config,
    labels_text,
    tensor_config,
    tensor_entries,
    update_versions,
)
from tests.exporter.conftest import GOLDEN, NAMES

MANIFEST = read_manifest(GOLDEN)
TENSORS = tensor_entries(GOLDEN / "model.onnx")


def triton_schema() -> ModuleType:
    """Load the module of Triton's messages from its file, because its package imports gRPC."""
    files = importlib.metadata.files("tritonclient") or ()
    file = next(file for file in files if file.name == "model_config_pb2.py")
    spec = importlib.util.spec_from_file_location("model_config_pb2", Path(str(file.locate())))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCHEMA = triton_schema()
TEXT_FORMAT = importlib.import_module("google.protobuf.text_format")


def parsed(text: str) -> Any:
    """Parse a ModelConfig; raises ParseError for a text that Triton cannot read."""
    return TEXT_FORMAT.Parse(text, SCHEMA.ModelConfig())


def tensor(options: Options) -> Any:
    return parsed(tensor_config("places", TENSORS, MANIFEST, {1: "20260101T000000-00000000 model.onnx"}, options))


def parameters(config: Any) -> dict[str, str]:
    return {key: value.string_value for key, value in config.parameters.items()}


def test_tensor_model_has_the_inputs_and_outputs_of_the_graph() -> None:
    config = tensor(Options())
    assert (config.name, config.platform, config.backend) == ("places", "onnxruntime_onnx", "onnxruntime")
    found = [(value.name, value.data_type, list(value.dims)) for value in (*config.input, *config.output)]
    uint8 = SCHEMA.TYPE_UINT8
    assert found == [("image", uint8, [-1, -1, 3]), ("mask", uint8, [-1, -1]), ("confidence", uint8, [-1, -1])]
    assert [value.label_filename for value in config.output] == ["labels.txt", ""]
    assert config.dynamic_batching.default_queue_policy.max_queue_size > 0
    assert parameters(config)["version_1"] == "20260101T000000-00000000 model.onnx"
    assert [entry["name"] for entry in json.loads(parameters(config)["classes"])] == list(NAMES)


@pytest.mark.parametrize(("kind", "expected"), [("auto", "KIND_AUTO"), ("cpu", "KIND_CPU"), ("gpu", "KIND_GPU")])
def test_instances_have_the_kind_and_count_of_the_options(kind: Any, expected: str) -> None:
    (group,) = tensor(Options(kind=kind, instances=3)).instance_group
    assert (group.kind, group.count) == (SCHEMA.ModelInstanceGroup.Kind.Value(expected), 3)


def test_max_batch_size_is_set() -> None:
    assert tensor(Options(max_batch_size=16)).max_batch_size == 16


def test_warm_up_runs_one_image() -> None:
    (sample,) = tensor(Options()).model_warmup
    image = sample.inputs["image"]
    assert (sample.batch_size, image.data_type, image.random_data) == (1, SCHEMA.TYPE_UINT8, True)
    assert [side > 0 for side in image.dims] == [True] * 3


def test_python_backend_has_no_platform() -> None:
    config = tensor(Options(backend="python"))
    assert (config.platform, config.backend) == ("", "python")


def test_tensorrt_runs_in_fp16_and_caches_engines() -> None:
    options = Options(kind="gpu", tensorrt=True, tensorrt_cache="/engines")
    (accelerator,) = tensor(options).optimization.execution_accelerators.gpu_execution_accelerator
    assert accelerator.name == "tensorrt"
    assert accelerator.parameters["precision_mode"] == "FP16"
    assert accelerator.parameters["trt_engine_cache_enable"] == "1"
    assert accelerator.parameters["trt_engine_cache_path"] == "/engines"
    assert not tensor(Options(kind="gpu")).HasField("optimization")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tensorrt": True, "kind": "cpu"}, "GPU"),
        ({"tensorrt": True, "backend": "python"}, "onnxruntime backend"),
        ({"instances": 0}, "--instances is 0"),
        ({"max_batch_size": 0}, "--max-batch-size is 0"),
        ({"max_pixels": -1}, "--max-pixels is -1"),
    ],
)
def test_invalid_options_are_rejected(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Options(**options)


def test_encoded_model_maps_image_files_to_png_files() -> None:
    config = parsed(encoded_config("places_encoded", "places", MANIFEST, Options(max_pixels=123)))
    assert (config.name, config.backend) == ("places_encoded", "python")
    found = [(value.name, value.data_type, list(value.dims)) for value in (*config.input, *config.output)]
    assert found == [("image_bytes", SCHEMA.TYPE_STRING, [1]), ("mask_png", SCHEMA.TYPE_STRING, [1])]
    assert parameters(config)["tensor_model"] == "places"
    assert parameters(config)["max_image_pixels"] == "123"
    assert [tuple(entry["color"]) for entry in json.loads(parameters(config)["classes"])] == [
        entry.color for entry in MANIFEST.classes
    ]
    assert "value_range" not in parameters(config)


def test_encoded_model_gets_the_value_range_of_the_bundle() -> None:
    manifest = MANIFEST.model_copy(update={"value_range": (0.0, 4095.0)})
    config = parsed(encoded_config("places_encoded", "places", manifest, Options()))
    assert json.loads(parameters(config)["value_range"]) == [0, 4095]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("KIND_CPU", "KIND_TOASTER"),
        ("max_batch_size: 4", 'max_batch_size: "four"'),
        ("max_batch_size", "largest_batch"),
        ("dims: [-1, -1, 3]", "dims: [-1, -1, RGB]"),
        ("dynamic_batching {", "dynamic_batching"),
    ],
)
def test_schema_rejects_an_invalid_config(old: str, new: str) -> None:
    text = tensor_config("places", TENSORS, MANIFEST, {}, Options(kind="cpu"))
    assert old in text
    with pytest.raises(TEXT_FORMAT.ParseError):
        parsed(text.replace(old, new))


@given(st.text(), st.text(), st.integers(1, 2**31 - 1))
def test_any_text_and_number_round_trips_through_the_schema(text: str, label: str, number: int) -> None:
    first = MANIFEST.classes[0].model_copy(update={"name": text})
    manifest = MANIFEST.model_copy(update={"name": text, "classes": (first, *MANIFEST.classes[1:])})
    options = Options(max_batch_size=number, tensorrt=True, tensorrt_cache=text)
    config = parsed(tensor_config(text, TENSORS, manifest, {number: label}, options))
    assert (config.name, config.max_batch_size) == (text, number)
    found = parameters(config)
    assert (found["bundle_name"], found[f"version_{number}"]) == (text, label)
    assert json.loads(found["classes"])[0]["name"] == text
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert accelerator.parameters["trt_timing_cache_path"] == text
    encoded = parsed(encoded_config(text, label, manifest, options))
    assert (encoded.name, parameters(encoded)["tensor_model"]) == (text, label)


def test_update_changes_only_the_list_of_versions() -> None:
    written = tensor_config("places", TENSORS, MANIFEST, {1: "first"}, Options())
    edited = written.replace("max_batch_size: 4", "max_batch_size: 7  # tried out")
    text = update_versions(edited, {1: "first", 2: "second"})
    config = parsed(text)
    assert config.max_batch_size == 7
    assert (parameters(config)["version_1"], parameters(config)["version_2"]) == ("first", "second")
    assert update_versions(text, {1: "first"}) == edited


def test_text_without_markers_is_unchanged() -> None:
    text = 'name: "places"\n'
    assert update_versions(text, {1: "first"}) == text


def test_labels_have_one_line_per_class() -> None:
    assert labels_text(MANIFEST.classes).splitlines() == list(NAMES)
    broken = ClassEntry(id=0, name="two\nlines", color=(0, 0, 0))
    assert labels_text((broken, *MANIFEST.classes)).splitlines() == ["two lines", *NAMES]


def graph_file(file: Path, mask_type: int, batch: str | int = "N") -> Path:
    """An empty graph with the inputs and outputs of a bundle's graph."""
    value = onnx.helper.make_tensor_value_info
    image = value("image", onnx.TensorProto.UINT8, [batch, "H", "W", 3])
    mask = value("mask", mask_type, [batch, "H", "W"])
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "graph", [image], [mask])), file)
    return file


def test_uint16_mask_is_type_uint16(tmp_path: Path) -> None:
    config = parsed(tensor_entries(graph_file(tmp_path / "model.onnx", onnx.TensorProto.UINT16)))
    (mask,) = config.output
    assert (mask.name, mask.data_type, list(mask.dims)) == ("mask", SCHEMA.TYPE_UINT16, [-1, -1])


@pytest.mark.parametrize(("mask_type", "batch"), [(onnx.TensorProto.FLOAT, "N"), (onnx.TensorProto.UINT8, 1)])
def test_graph_with_other_tensors_is_rejected(tmp_path: Path, mask_type: int, batch: str | int) -> None:
    with pytest.raises(BundleError, match="must be uint8 or uint16 with a dynamic batch"):
        tensor_entries(graph_file(tmp_path / "model.onnx", mask_type, batch))
