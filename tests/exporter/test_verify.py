"""Verify accepts the golden bundle and notices everything that was done to it."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporter.bundle import BundleError, read_manifest, sha256_of
from exporter.manifest import Manifest
from exporter.tensorrt.profile import for_onnxruntime, usual_profile
from exporter.verify import verified_table, verify
from tests.exporter.conftest import GOLDEN
from tests.exporter.test_export import damage


def test_the_golden_bundle_stays_readable() -> None:
    """It was written by format 1's first exporter. If this fails, old bundles no longer work: do not write it anew."""
    verified = verify(GOLDEN)
    assert verified.images == 2
    assert verified.mask_agreement >= 0.999
    assert [entry.name for entry in verified.manifest.classes] == ["sky", "road", "tree", "wall", "sea"]
    assert sum(file.stat().st_size for file in GOLDEN.iterdir()) < 300_000


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return shutil.copytree(GOLDEN, tmp_path / "bundle")


def rewrite(bundle: Path, change: Callable[[Manifest], Manifest] = lambda manifest: manifest) -> None:
    """Make the manifest fit the files again, as someone who means harm would."""
    manifest = read_manifest(bundle)
    artifact = dataclasses.replace(manifest.artifacts[0], sha256=sha256_of(bundle / "model.onnx"))
    probe = dataclasses.replace(manifest.probe, sha256=sha256_of(bundle / "probe.npz"))
    manifest = change(dataclasses.replace(manifest, artifacts=(artifact,), probe=probe))
    (bundle / "manifest.json").write_text(manifest.to_json())


@pytest.mark.parametrize("name", ["model.onnx", "probe.npz"])
def test_a_flipped_bit_is_noticed(bundle: Path, name: str) -> None:
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{name}: its sha256"):
        verify(bundle)


@pytest.mark.parametrize("name", ["model.onnx", "probe.npz"])
def test_a_missing_file_is_noticed(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(BundleError, match=f"{name}: missing"):
        verify(bundle)


@pytest.mark.parametrize("name", ["model.onnx", "probe.npz"])
def test_a_file_that_is_none_is_noticed_even_with_fitting_sums(bundle: Path, name: str) -> None:
    (bundle / name).write_bytes(b"PK no such thing")
    rewrite(bundle)
    with pytest.raises(BundleError, match=name):
        verify(bundle)


def test_a_graph_that_answers_wrongly_is_noticed_even_with_fitting_sums(bundle: Path) -> None:
    damage(bundle / "model.onnx")
    rewrite(bundle)
    with pytest.raises(BundleError, match="do not serve it"):
        verify(bundle)


def test_a_probe_without_its_mask_is_noticed(bundle: Path) -> None:
    with np.load(bundle / "probe.npz") as probe:
        arrays = {name: probe[name] for name in probe if name != "mask_1"}
    np.savez(bundle / "probe.npz", allow_pickle=False, **arrays)
    rewrite(bundle)
    with pytest.raises(BundleError, match="mask_1"):
        verify(bundle)


def tell_tensorrt(bundle: Path, **changes: Any) -> None:
    """Give the manifest its `tensorrt`, with changes."""
    sha256 = sha256_of(bundle / "model.onnx")
    told = dataclasses.replace(for_onnxruntime("model.onnx", sha256, usual_profile(0)), **changes)
    rewrite(bundle, lambda manifest: dataclasses.replace(manifest, tensorrt=told))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"file": "model.fp16.onnx"}, "is not of the graph 'model.fp16.onnx'"),
        ({"cache_key": "0123456789abcdef_1x1x1"}, "is not of the graph"),
        ({"provider_options": {}}, "is not of the graph"),
        ({"provider_options": {"trt_extra_plugin_lib_paths": "x.so"}}, "none of a bundle's: trt_extra_plugin_lib"),
        ({"provider_options": {"trt_fp16_enable": 1}}, "none of a bundle's: trt_fp16_enable"),
    ],
)
def test_what_tensorrt_is_told_must_be_of_the_graph(bundle: Path, changes: dict[str, Any], message: str) -> None:
    tell_tensorrt(bundle)
    verify(bundle)
    tell_tensorrt(bundle, **changes)
    with pytest.raises(BundleError, match=message):
        verify(bundle)


def test_the_table_has_a_row_for_each_graph(bundle: Path) -> None:
    verified = verify(bundle)
    head, _, *rows = verified_table(verified).splitlines()
    assert head == "| graph | precision | MB | as stored | needed |"
    assert [row.split(" | ")[0] for row in rows] == ["| `model.onnx`"]


def test_a_graph_with_more_classes_than_the_manifest_is_noticed(bundle: Path) -> None:
    rewrite(bundle, lambda manifest: dataclasses.replace(manifest, classes=manifest.classes[:2]))
    with pytest.raises(BundleError, match="names 2 classes"):
        verify(bundle)
