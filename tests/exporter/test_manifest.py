"""Reading and writing manifest.json."""

import json
from typing import Any

import pytest

from exporter.manifest import Manifest, ManifestError
from tests.exporter.conftest import GOLDEN


@pytest.fixture
def fields() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((GOLDEN / "manifest.json").read_text())
    return loaded


def read(fields: object) -> Manifest:
    return Manifest.from_json(json.dumps(fields))


def test_read_then_write_gives_identical_text() -> None:
    text = (GOLDEN / "manifest.json").read_text()
    assert Manifest.from_json(text).to_json() == text


def test_missing_checkpoint_is_absent_and_not_null(fields: dict[str, Any]) -> None:
    assert "checkpoint" not in json.loads(read(fields).to_json())
    fields["checkpoint"] = {"file": "model.safetensors", "sha256": "0" * 64}
    manifest = read(fields)
    assert manifest.checkpoint is not None
    assert manifest.files["model.safetensors"] == "0" * 64
    assert json.loads(manifest.to_json())["checkpoint"] == fields["checkpoint"]


def test_unknown_fields_are_ignored(fields: dict[str, Any]) -> None:
    fields["licence"] = "CC0"
    fields["artifacts"][0]["batch"] = 4
    assert read(fields).name == fields["name"]


@pytest.mark.parametrize("version", [0, 2, "1", True, 1.0, None])
def test_format_version_is_checked_first(version: object) -> None:
    with pytest.raises(ManifestError, match="format_version"):
        read({"format_version": version})


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("name",), 7, "name: Input should be a valid string, found 7"),
        (("ignore_index",), True, "ignore_index: Input should be a valid integer, found True"),
        (("classes",), [], "classes: .* at least 1 item"),
        (("classes", 1, "id"), 5, "classes: .*ids must be"),
        (("classes", 0, "color"), [1, 2], r"classes\[0\]\.color\[2\]: Field required"),
        (("inference", "rule"), "tiles", "inference.rule: Input should be 'whole', found 'tiles'"),
        (("probe", "tolerance", "mask_agreement"), "high", "probe.tolerance.mask_agreement: Input should be a valid n"),
        (("probe", "sha256"), "0" * 63, "probe.sha256: String should match"),
        (("artifacts",), [], "artifacts: .* at least 1 item"),
        (("artifacts", 0, "precision"), "int4", r"artifacts\[0\]\.precision: Input should be 'fp32', 'fp16' or 'int8'"),
        (("artifacts", 0, "precision"), "int8", "artifacts: .*one must have the precision fp32"),
        (("artifacts", 0, "file"), "../model.onnx", r"artifacts\[0\]\.file: String should match"),
        (("artifacts", 0, "file"), "/etc/passwd", r"artifacts\[0\]\.file: String should match"),
        (("artifacts", 0, "speed"), None, "speed: Input should be an object"),
        (("value_range",), [1.0, 1.0], "value_range: .*black must be below white"),
        (("value_range",), [0, float("inf")], "value_range\\[1\\]: Input should be a finite number"),
        (("tensorrt",), {"file": "model.onnx", "cache_key": "k"}, "tensorrt.provider_options: Field required"),
        (("tensorrt",), {"file": "model.onnx", "cache_key": "../k", "provider_options": {}}, "cache_key: String sho"),
    ],
)
def test_invalid_fields_are_named(fields: dict[str, Any], path: tuple[Any, ...], value: object, message: str) -> None:
    *parents, last = path
    inner: Any = fields
    for key in parents:
        inner = inner[key]
    inner[last] = value
    with pytest.raises(ManifestError, match=message):
        read(fields)


def test_missing_field_is_named(fields: dict[str, Any]) -> None:
    del fields["artifacts"][0]["agreement"]["mask"]
    with pytest.raises(ManifestError, match=r"artifacts\[0\]\.agreement\.mask: Field required"):
        read(fields)


@pytest.mark.parametrize("text", ["", "[1]", "{", '"bundle"'])
def test_text_that_is_not_a_manifest_is_refused(text: str) -> None:
    with pytest.raises(ManifestError):
        Manifest.from_json(text)
