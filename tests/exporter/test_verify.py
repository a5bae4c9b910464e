"""Verification accepts the golden bundle and rejects damaged ones."""

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


def test_golden_bundle_stays_readable() -> None:
    """The first exporter of format 1 wrote it. If this fails, old bundles no longer work: do not regenerate it."""
    verified = verify(GOLDEN)
    assert verified.images == 2
    assert verified.mask_agreement >= 0.999
    assert [entry.name for entry in verified.manifest.classes] == ["sky", "road", "tree", "wall", "sea"]
    assert sum(file.stat().st_size for file in GOLDEN.iterdir()) < 300_000


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return shutil.copytree(GOLDEN, tmp_path / "bundle")


def rewrite(bundle: Path, change: Callable[[Manifest], Manifest] = lambda manifest: manifest) -> None:
    """Update the checksums in the manifest, as an attacker would."""
    manifest = read_manifest(bundle)
    artifact = manifest.artifacts[0].model_copy(update={"sha256": sha256_of(bundle / "model.onnx")})
    probe = manifest.probe.model_copy(update={"sha256": sha256_of(bundle / "probe.npz")})
    manifest = change(manifest.model_copy(update={"artifacts": (artifact,), "probe": probe}))
    (bundle / "manifest.json").write_text(manifest.to_json())


@pytest.mark.parametrize("name", ["model.onnx", "probe.npz"])
def test_flipped_bit_is_rejected(bundle: Path, name: str) -> None:
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{name}: its sha256"):
        verify(bundle)


@pytest.mark.parametrize("name", ["model.onnx", "probe.npz"])
def test_missing_file_is_rejected(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(BundleError, match=f"{name}: missing"):
        verify(bundle)


@pytest.mark.parametrize("name", ["model.onnx", "probe.npz"])
def test_invalid_file_with_matching_checksum_is_rejected(bundle: Path, name: str) -> None:
    (bundle / name).write_bytes(b"PK not a zip file")
    rewrite(bundle)
    with pytest.raises(BundleError, match=name):
        verify(bundle)


def test_graph_with_wrong_masks_and_matching_checksum_is_rejected(bundle: Path) -> None:
    damage(bundle / "model.onnx")
    rewrite(bundle)
    with pytest.raises(BundleError, match="do not serve it"):
        verify(bundle)


def test_probe_without_a_mask_is_rejected(bundle: Path) -> None:
    with np.load(bundle / "probe.npz") as probe:
        arrays = {name: probe[name] for name in probe if name != "mask_1"}
    np.savez(bundle / "probe.npz", allow_pickle=False, **arrays)
    rewrite(bundle)
    with pytest.raises(BundleError, match="mask_1"):
        verify(bundle)


def set_tensorrt(bundle: Path, **changes: Any) -> None:
    """Write `tensorrt` to the manifest, with changes."""
    sha256 = sha256_of(bundle / "model.onnx")
    tensorrt = for_onnxruntime("model.onnx", sha256, usual_profile(0)).model_copy(update=changes)
    rewrite(bundle, lambda manifest: manifest.model_copy(update={"tensorrt": tensorrt}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"file": "model.fp16.onnx"}, "does not match the graph 'model.fp16.onnx'"),
        ({"cache_key": "0123456789abcdef_1x1x1"}, "does not match the graph"),
        ({"provider_options": {}}, "does not match the graph"),
        ({"provider_options": {"trt_extra_plugin_lib_paths": "x.so"}}, "unknown options: trt_extra_plugin_lib"),
        ({"provider_options": {"trt_fp16_enable": 1}}, "unknown options: trt_fp16_enable"),
    ],
)
def test_tensorrt_settings_that_do_not_match_the_graph_are_rejected(
    bundle: Path, changes: dict[str, Any], message: str
) -> None:
    set_tensorrt(bundle)
    verify(bundle)
    set_tensorrt(bundle, **changes)
    with pytest.raises(BundleError, match=message):
        verify(bundle)


def test_table_has_a_row_for_each_graph(bundle: Path) -> None:
    verified = verify(bundle)
    head, _, *rows = verified_table(verified).splitlines()
    assert head == "| graph | precision | MB | agreement | required |"
    assert [row.split(" | ")[0] for row in rows] == ["| `model.onnx`"]


def test_graph_with_more_classes_than_the_manifest_is_rejected(bundle: Path) -> None:
    rewrite(bundle, lambda manifest: manifest.model_copy(update={"classes": manifest.classes[:2]}))
    with pytest.raises(BundleError, match="manifest has 2 classes"):
        verify(bundle)
