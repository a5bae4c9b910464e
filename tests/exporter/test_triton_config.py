"""config.pbtxt by Triton's own schema, which tritonclient carries."""

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
from exporter.triton.config import Options, encoded_config, labels, tensor_config, with_versions
from exporter.triton.pbtxt import Word, entries, to_text
from exporter.triton.signature import Tensor, read_signature
from tests.exporter.conftest import GOLDEN, NAMES

MANIFEST = read_manifest(GOLDEN)
SIGNATURE = read_signature(GOLDEN / "model.onnx")


def triton_schema() -> ModuleType:
    """Triton's messages. Loaded by its file, as the package around it would ask for a gRPC that nothing here needs."""
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
    """A ModelConfig; raises ParseError for a text that Triton would not read."""
    return TEXT_FORMAT.Parse(text, SCHEMA.ModelConfig())


def tensor(options: Options) -> Any:
    return parsed(tensor_config("places", SIGNATURE, MANIFEST, {1: "20260101T000000-00000000 model.onnx"}, options))


def parameters(config: Any) -> dict[str, str]:
    return {key: value.string_value for key, value in config.parameters.items()}


def test_the_tensor_model_takes_and_gives_what_the_graph_does() -> None:
    config = tensor(Options())
    assert (config.name, config.platform, config.backend) == ("places", "onnxruntime_onnx", "onnxruntime")
    found = [(value.name, value.data_type, list(value.dims)) for value in (*config.input, *config.output)]
    uint8 = SCHEMA.TYPE_UINT8
    assert found == [("image", uint8, [-1, -1, 3]), ("mask", uint8, [-1, -1]), ("confidence", uint8, [-1, -1])]
    assert [value.label_filename for value in config.output] == ["labels.txt", ""]
    assert config.dynamic_batching.default_queue_policy.max_queue_size > 0
    assert parameters(config)["version_1"] == "20260101T000000-00000000 model.onnx"
    assert [entry["name"] for entry in json.loads(parameters(config)["classes"])] == list(NAMES)


@pytest.mark.parametrize(("kind", "word"), [("auto", "KIND_AUTO"), ("cpu", "KIND_CPU"), ("gpu", "KIND_GPU")])
def test_instances_run_where_they_are_told_to(kind: Any, word: str) -> None:
    (group,) = tensor(Options(kind=kind, instances=3)).instance_group
    assert (group.kind, group.count) == (SCHEMA.ModelInstanceGroup.Kind.Value(word), 3)


def test_the_batch_is_as_large_as_asked_for() -> None:
    assert tensor(Options(max_batch_size=16)).max_batch_size == 16


def test_one_image_warms_the_tensor_model_up() -> None:
    (sample,) = tensor(Options()).model_warmup
    image = sample.inputs["image"]
    assert (sample.batch_size, image.data_type, image.random_data) == (1, SCHEMA.TYPE_UINT8, True)
    assert [side > 0 for side in image.dims] == [True] * 3


def test_the_python_backend_is_named_alone() -> None:
    config = tensor(Options(backend="python"))
    assert (config.platform, config.backend) == ("", "python")


def test_tensorrt_in_fp16_keeps_its_engines() -> None:
    options = Options(kind="gpu", tensorrt=True, tensorrt_cache="/engines")
    (accelerator,) = tensor(options).optimization.execution_accelerators.gpu_execution_accelerator
    assert accelerator.name == "tensorrt"
    assert accelerator.parameters["precision_mode"] == "FP16"
    assert accelerator.parameters["trt_engine_cache_enable"] == "1"
    assert accelerator.parameters["trt_engine_cache_path"] == "/engines"
    assert not tensor(Options(kind="gpu")).HasField("optimization")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"tensorrt": True, "kind": "cpu"}, "GPU"),
        ({"tensorrt": True, "backend": "python"}, "onnxruntime backend"),
        ({"instances": 0}, "--instances 0"),
        ({"max_batch_size": 0}, "--max-batch-size 0"),
        ({"max_pixels": -1}, "--max-pixels -1"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Options(**options)


def test_the_encoded_model_takes_files_and_gives_files() -> None:
    config = parsed(encoded_config("places_encoded", "places", MANIFEST, Options(max_pixels=123)))
    assert (config.name, config.backend) == ("places_encoded", "python")
    found = [(value.name, value.data_type, list(value.dims)) for value in (*config.input, *config.output)]
    assert found == [("image_bytes", SCHEMA.TYPE_STRING, [1]), ("mask_png", SCHEMA.TYPE_STRING, [1])]
    assert parameters(config)["tensor_model"] == "places"
    assert parameters(config)["max_image_pixels"] == "123"
    assert [tuple(entry["color"]) for entry in json.loads(parameters(config)["classes"])] == [
        entry.color for entry in MANIFEST.classes
    ]


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
def test_the_schema_refuses_a_broken_config(old: str, new: str) -> None:
    text = tensor_config("places", SIGNATURE, MANIFEST, {}, Options(kind="cpu"))
    assert old in text
    with pytest.raises(TEXT_FORMAT.ParseError):
        parsed(text.replace(old, new))


@given(st.text(), st.text(min_size=1), st.integers(-(2**31), 2**31 - 1), st.booleans())
def test_what_is_written_is_what_triton_reads(text: str, key: str, number: int, flag: bool) -> None:
    message = to_text(
        {
            "name": text,
            "max_batch_size": number,
            "input": [{"name": "a", "data_type": Word("TYPE_BF16"), "dims": [1, -1]}, {"name": "b", "optional": flag}],
            "parameters": entries({key: {"string_value": text}}),
        }
    )
    config = parsed(message)
    assert (config.name, config.max_batch_size) == (text, number)
    assert [(value.name, list(value.dims), value.optional) for value in config.input] == [
        ("a", [1, -1], False),
        ("b", [], flag),
    ]
    assert parameters(config) == {key: text}


def test_a_later_export_changes_the_list_of_versions_and_nothing_else() -> None:
    written = tensor_config("places", SIGNATURE, MANIFEST, {1: "first"}, Options())
    tuned = written.replace("max_batch_size: 4", "max_batch_size: 7  # tried out")
    text = with_versions(tuned, {1: "first", 2: "second"})
    config = parsed(text)
    assert config.max_batch_size == 7
    assert (parameters(config)["version_1"], parameters(config)["version_2"]) == ("first", "second")
    assert with_versions(text, {1: "first"}) == tuned


def test_without_the_marks_the_text_stays() -> None:
    text = to_text({"name": "places"})
    assert with_versions(text, {1: "first"}) == text


def test_labels_are_one_line_a_class() -> None:
    assert labels(MANIFEST.classes).splitlines() == list(NAMES)
    broken = ClassEntry(id=0, name="two\nlines", color=(0, 0, 0))
    assert labels((broken, *MANIFEST.classes)).splitlines() == ["two lines", *NAMES]


def graph_file(file: Path, mask_type: int, batch: str | int = "N") -> Path:
    """A graph of a bundle's tensors that computes nothing of use."""
    value = onnx.helper.make_tensor_value_info
    image = value("image", onnx.TensorProto.UINT8, [batch, "H", "W", 3])
    mask = value("mask", mask_type, [batch, "H", "W"])
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "graph", [image], [mask])), file)
    return file


def test_a_mask_of_many_classes_has_two_bytes(tmp_path: Path) -> None:
    (mask,) = read_signature(graph_file(tmp_path / "model.onnx", onnx.TensorProto.UINT16)).outputs
    assert mask == Tensor("mask", "TYPE_UINT16", (-1, -1))


@pytest.mark.parametrize(("mask_type", "batch"), [(onnx.TensorProto.FLOAT, "N"), (onnx.TensorProto.UINT8, 1)])
def test_a_graph_that_is_no_bundles_is_refused(tmp_path: Path, mask_type: int, batch: str | int) -> None:
    with pytest.raises(BundleError, match="is not a bundle's tensor"):
        read_signature(graph_file(tmp_path / "model.onnx", mask_type, batch))
