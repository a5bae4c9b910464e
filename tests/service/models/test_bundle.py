"""Bundles: invalid ones are rejected with an error that names the file and the field."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.errors import BodyTooLarge, BundleInvalid, MaskloopError
from service.models.bundle import read_bundle
from service.models.bundle_archive import unpack
from service.models.loading import load_model
from service.settings import Settings
from tests.service.tiny_bundle import write_manifest, zipped

VERSION = "20260101T000000-aaaaaaaa"


def test_valid_bundle_is_read(bundle: Path) -> None:
    valid = read_bundle(bundle)
    assert valid.manifest.version == VERSION
    assert [c.name for c in valid.manifest.classes] == ["red", "green", "blue", "black", "white"]
    assert valid.checkpoint is None
    assert valid.manifest.miou == 0.5


def test_fp32_graph_with_fused_attention_is_preferred(bundle: Path) -> None:
    fused = bundle / "model.fused.onnx"
    fused.write_bytes((bundle / "model.onnx").read_bytes())
    manifest = json.loads((bundle / "manifest.json").read_text())
    (artifact,) = manifest["artifacts"]
    write_manifest(bundle, version=VERSION, artifacts=[artifact, artifact | {"file": fused.name, "fused_attention": 2}])
    assert load_model(read_bundle(bundle), Settings(inference_threads=1)).artifact.file == fused.name


def test_golden_bundle_of_format_1_loads() -> None:
    folder = Path(__file__).parents[2] / "golden" / "bundle_v1"
    loaded = load_model(read_bundle(folder), Settings(inference_threads=1))
    assert loaded.engine.provider == "CPUExecutionProvider"
    assert len(loaded.class_table.names) == len(loaded.class_table.colors)


def test_unknown_fields_are_ignored(bundle: Path) -> None:
    write_manifest(bundle, version=VERSION, invented_later={"a": 1})
    assert read_bundle(bundle).manifest.version == VERSION


def test_checkpoint_must_match_its_sha256(bundle: Path) -> None:
    (bundle / "model.safetensors").write_bytes(b"weights")
    write_manifest(bundle, version=VERSION, checkpoint={"file": "model.safetensors", "sha256": "0" * 64})
    with pytest.raises(BundleInvalid, match=r"model\.safetensors does not match"):
        read_bundle(bundle)


@pytest.mark.parametrize("version", [0, 2, "1", None, True, 1.5])
def test_format_version_is_checked_first(bundle: Path, version: Any) -> None:
    (bundle / "manifest.json").write_text(json.dumps({"format_version": version}))
    with pytest.raises(BundleInvalid, match="format_version"):
        read_bundle(bundle)


CLASSES = [{"id": 0, "name": "a", "color": [0, 0, 0]}]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("inference", {"rule": "sliding", "long_side": 0, "multiple": 1}, "inference.rule"),
        ("inference", {"rule": "whole", "long_side": -1, "multiple": 1}, "inference.long_side"),
        ("classes", [], "classes"),
        ("classes", [{"id": 1, "name": "a", "color": [0, 0, 0]}], "in order"),
        ("classes", [{"id": 0, "name": "a", "color": [0, 0, 256]}], "classes.0.color"),
        ("artifacts", [], "artifacts"),
        ("artifacts", [{"file": "../model.onnx", "precision": "fp32", "sha256": "0" * 64, "opset": 20}], "file"),
        ("artifacts", [{"file": "model.onnx", "precision": "fp8", "sha256": "0" * 64, "opset": 20}], "precision"),
        ("artifacts", [{"file": "model.onnx", "precision": "fp16", "sha256": "0" * 64, "opset": 20}], "fp32"),
        ("value_range", [4095, 0], "value_range: black must be below white"),
        ("value_range", [0, float("nan")], "value_range.1"),
        ("name", "a\0b", "name"),
        ("name", "a\nb", "name"),
        ("name", "", "name"),
        ("name", "x" * 201, "name"),
        ("version", "../evil", "version"),
        ("version", "", "version"),
        ("ignore_index", "255", "ignore_index"),
        ("probe", {"file": "probe.npz", "sha256": "0" * 64}, "probe.tolerance"),
    ],
)
def test_invalid_field_is_named(bundle: Path, field: str, value: Any, message: str) -> None:
    write_manifest(bundle, **({"version": VERSION} | {field: value}))
    with pytest.raises(BundleInvalid, match=message) as caught:
        read_bundle(bundle)
    assert "manifest.json" in str(caught.value)


@pytest.mark.parametrize(("parent", "valid"), [(VERSION, True), ("a\0b", False), ("p" * 65, False), (7, False)])
def test_parent_that_is_no_version_is_ignored(bundle: Path, parent: Any, valid: bool) -> None:
    write_manifest(bundle, version=VERSION, provenance={"parent": parent})
    assert read_bundle(bundle).manifest.parent == (parent if valid else None)


def test_missing_and_changed_files_are_named(bundle: Path) -> None:
    with (bundle / "probe.npz").open("ab") as handle:
        handle.write(b"!")
    with pytest.raises(BundleInvalid, match=r"probe\.npz does not match"):
        read_bundle(bundle)
    (bundle / "model.onnx").unlink()
    with pytest.raises(BundleInvalid, match=r"model\.onnx .* missing"):
        read_bundle(bundle)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"null", b"\xff\xfe"])
def test_manifest_that_is_no_json_object_is_rejected(bundle: Path, content: bytes) -> None:
    (bundle / "manifest.json").write_bytes(content)
    with pytest.raises(BundleInvalid):
        read_bundle(bundle)


@pytest.mark.parametrize("inside", ["", "bundle/", "a/b/"])
def test_zip_may_contain_the_files_or_their_folder(bundle: Path, tmp_path: Path, inside: str) -> None:
    unpack(io.BytesIO(zipped(bundle, inside=inside)), tmp_path / "out", max_bytes=10**7)
    assert read_bundle(tmp_path / "out").manifest.version == VERSION


def repacked(data: bytes, rename: Callable[[str], str], *more: str) -> io.BytesIO:
    """Write a zip again with other names, and further entries around its own."""
    sink = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in more[::2]:
            archive.writestr(name, "" if name.endswith(("/", "\\")) else b"\0\5\x16\7")
        for info in source.infolist():
            archive.writestr(rename(info.filename), source.read(info))
        for name in more[1::2]:
            archive.writestr(name, "" if name.endswith(("/", "\\")) else b"\0\5\x16\7")
    sink.seek(0)
    return sink


MACOS = [f"__MACOSX/bundle/._{name}" for name in ("manifest.json", "model.onnx", "probe.npz", "MODEL_CARD.md")]


@pytest.mark.parametrize(
    ("folder", "more"),
    [
        # The Finder of macOS, and `tar -a` on it.
        ("bundle/", ("bundle/", "__MACOSX/", "bundle/.DS_Store", "__MACOSX/._bundle", *MACOS)),
        ("", (".DS_Store", "__MACOSX/._manifest.json", "._manifest.json", "._model.onnx")),
        # Programs on Windows.
        ("bundle\\", ("bundle\\", "bundle\\Thumbs.db")),
        ("", ("THUMBS.DB", "Desktop.ini", "thumbs.db")),
        ("a\\b\\", ("a\\", "a\\b\\", "a\\desktop.ini")),
        # More of them than a bundle has files.
        ("bundle/", tuple(f"__MACOSX/bundle/._{number}.json" for number in range(30))),
    ],
)
def test_zips_of_macos_and_windows_are_read(bundle: Path, tmp_path: Path, folder: str, more: tuple[str, ...]) -> None:
    packed = repacked(zipped(bundle), lambda name: folder + name, *more)
    unpack(packed, tmp_path / "out", max_bytes=10**7)
    assert read_bundle(tmp_path / "out").manifest.version == VERSION
    assert {path.name for path in (tmp_path / "out").iterdir()} == {path.name for path in bundle.iterdir()}


def test_upload_that_is_no_zip_is_recognised(bundle: Path, tmp_path: Path) -> None:
    data = zipped(bundle)
    for upload, kind in (
        (base64.b64encode(data), "is base64"),
        (data.translate(None, b"\0\r\n"), "has lost its NUL bytes"),
        (b'{"version": 1}', "is JSON"),
    ):
        with pytest.raises(BundleInvalid, match=f"The upload {kind}"):
            unpack(io.BytesIO(upload), tmp_path / "out", max_bytes=10**7)


def zip_of(*names: str) -> io.BytesIO:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    sink.seek(0)
    return sink


@pytest.mark.parametrize(
    "names",
    [
        ("manifest.json", "../evil.json"),
        ("manifest.json", "/etc/evil.json"),
        ("b/manifest.json", "b/../../evil.json"),
        ("b/manifest.json", "c/model.onnx"),
        ("manifest.json", "..\\evil.json"),
        ("b\\manifest.json", "b\\..\\..\\evil.json"),
        ("manifest.json", "C:\\evil.json"),
        ("__MACOSX/manifest.json", "__MACOSX/model.onnx"),
        ("manifest.json", "run.py"),
        ("manifest.json", ".hidden.json"),
        ("manifest.json", "sub/model.onnx"),
        ("model.onnx",),
        (),
        ("manifest.json", *(f"{i}.json" for i in range(20))),
    ],
)
def test_zip_with_unexpected_names_writes_nothing(tmp_path: Path, names: tuple[str, ...]) -> None:
    target = tmp_path / "deep" / "out"
    target.parent.mkdir()
    with pytest.raises(BundleInvalid):
        unpack(zip_of(*names), target, max_bytes=10**7)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_zip_bomb_stops_at_the_limit(tmp_path: Path) -> None:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", "{}")
        archive.writestr("model.onnx", bytes(50_000_000))
    assert len(sink.getvalue()) < 100_000
    with pytest.raises(BodyTooLarge):
        unpack(sink, tmp_path / "out", max_bytes=5_000_000)
    assert sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file()) <= 5_000_002


def test_damaged_zip_is_rejected(bundle: Path, tmp_path: Path) -> None:
    data = zipped(bundle)
    for i, broken in enumerate((b"", b"PK", data[:-30], data[: len(data) // 2], b"\0" * 100)):
        with pytest.raises(MaskloopError):
            unpack(io.BytesIO(broken), tmp_path / str(i), max_bytes=10**7)


def entry_of(data: bytes) -> tuple[bytes, int, int]:
    """Return a zip, the offset of the data of its first entry, and that of its directory."""
    return data, 30 + len("manifest.json"), data.index(b"PK\1\2")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("damaged", [False, True])
def test_unsupported_compression_and_damaged_entries_are_rejected(tmp_path: Path, method: int, damaged: bool) -> None:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", method) as archive:
        archive.writestr("manifest.json", "x" * 100)
    data, begin, end = entry_of(sink.getvalue())
    if damaged:
        data = data[:begin] + b"\xff" * (end - begin) + data[end:]
    supported = method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    if supported and not damaged:
        unpack(io.BytesIO(data), tmp_path / "out", max_bytes=10**7)
        return
    with pytest.raises(BundleInvalid, match="not a readable zip" if supported else "unsupported compression"):
        unpack(io.BytesIO(data), tmp_path / "out", max_bytes=10**7)


def test_entry_outside_the_file_is_rejected(bundle: Path, tmp_path: Path) -> None:
    data = bytearray(zipped(bundle))
    # Offset of the first entry, as stored in the directory.
    field = data.index(b"PK\1\2") + 42
    data[field : field + 4] = b"\xf0\xff\xff\xff"
    file = tmp_path / "upload.zip"
    file.write_bytes(data)
    with file.open("rb") as packed_file, pytest.raises(BundleInvalid, match="not a readable zip"):
        unpack(packed_file, tmp_path / "out", max_bytes=10**7)


def test_write_error_is_not_reported_as_an_invalid_bundle(bundle: Path, tmp_path: Path) -> None:
    """The parent of the target is a file, so that writing fails, as on a full disk."""
    data = zipped(bundle)
    file = tmp_path / "no-folder"
    file.write_bytes(b"")
    with pytest.raises(OSError, match="no-folder"):
        unpack(io.BytesIO(data), file / "out", max_bytes=10**7)
