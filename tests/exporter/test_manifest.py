"""manifest.json: exact when written, strict when read."""

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


def test_reading_and_writing_are_inverse() -> None:
    text = (GOLDEN / "manifest.json").read_text()
    assert Manifest.from_json(text).to_json() == text


def test_a_checkpoint_is_optional_and_absent_rather_than_null(fields: dict[str, Any]) -> None:
    assert "checkpoint" not in json.loads(read(fields).to_json())
    fields["checkpoint"] = {"file": "model.safetensors", "sha256": "0" * 64}
    manifest = read(fields)
    assert manifest.checkpoint is not None
    assert manifest.files["model.safetensors"] == "0" * 64
    assert json.loads(manifest.to_json())["checkpoint"] == fields["checkpoint"]


def test_unknown_fields_are_passed_over(fields: dict[str, Any]) -> None:
    fields["licence"] = "CC0"
    fields["artifacts"][0]["batch"] = 4
    assert read(fields).name == fields["name"]


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_format_is_refused_before_anything_else(version: object) -> None:
    with pytest.raises(ManifestError, match="format_version"):
        read({"format_version": version})


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("name",), 7, "name: expected str"),
        (("ignore_index",), True, "ignore_index: expected int"),
        (("classes",), [], "classes: ids must be"),
        (("classes", 1, "id"), 5, "classes: ids must be"),
        (("classes", 0, "color"), [1, 2], r"classes\[0\]\.color: expected 3 values"),
        (("inference", "rule"), "tiles", "inference.rule: 'tiles'"),
        (("probe", "tolerance", "mask_agreement"), "high", "probe.tolerance.mask_agreement: expected float"),
        (("artifacts",), [], "artifacts"),
        (("artifacts", 0, "file"), "../model.onnx", "own folder only"),
        (("artifacts", 0, "file"), "/etc/passwd", "own folder only"),
        (("artifacts", 0, "speed"), None, "speed: expected an object"),
        (("tensorrt",), {"file": "model.onnx", "cache_key": "k"}, "tensorrt.provider_options: missing"),
        (("tensorrt",), {"file": "model.onnx", "cache_key": "../k", "provider_options": {}}, "no plain name"),
    ],
)
def test_misshapen_fields_are_named(fields: dict[str, Any], path: tuple[Any, ...], value: object, message: str) -> None:
    *parents, last = path
    inner: Any = fields
    for key in parents:
        inner = inner[key]
    inner[last] = value
    with pytest.raises(ManifestError, match=message):
        read(fields)


def test_a_missing_field_is_named(fields: dict[str, Any]) -> None:
    del fields["artifacts"][0]["agreement"]["mask"]
    with pytest.raises(ManifestError, match=r"artifacts\[0\]\.agreement\.mask: missing"):
        read(fields)


@pytest.mark.parametrize("text", ["", "[1]", "{", '"bundle"'])
def test_what_is_no_manifest_is_refused(text: str) -> None:
    with pytest.raises(ManifestError):
        Manifest.from_json(text)
