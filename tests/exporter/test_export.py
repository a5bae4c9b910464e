"""Export of a checkpoint to a bundle."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
from torch import nn

from exporter import export as export_module
from exporter.bundle import BundleError, read_manifest, sha256_of
from exporter.export import STAGES, eager, export
from exporter.model_card import miou_classes, model_card
from exporter.verify import verify
from tests.exporter.conftest import COLORS, NAMES, predictor_of
from trainer.checkpoint import CheckpointError, load


def test_manifest_contains_the_checkpoints_data(vit_bundle: Path, vit_checkpoint: Path) -> None:
    manifest = read_manifest(vit_bundle)
    assert [(entry.id, entry.name, entry.color) for entry in manifest.classes] == [
        (number, name, color) for number, (name, color) in enumerate(zip(NAMES, COLORS, strict=True))
    ]
    assert (manifest.name, manifest.ignore_index, manifest.provenance.parent) == (
        "places",
        255,
        "20260101T000000-00000000",
    )
    assert (manifest.inference.long_side, manifest.inference.multiple) == (0, 8)
    assert manifest.metrics["per_class"] == dict.fromkeys(NAMES, 0.2) | {"sea": None}
    assert manifest.provenance.recipe["model"]["encoder"] == "vit_tiny_patch16_224"
    assert manifest.provenance.data_fingerprint == "0123abcd"
    assert manifest.value_range == (0.0, 4095.0)
    assert manifest.checkpoint is not None
    assert (vit_bundle / manifest.checkpoint.file).read_bytes() == vit_checkpoint.read_bytes()


def test_sliding_window_metrics_are_only_reported_as_text(vit_checkpoint: Path, vit_bundle: Path) -> None:
    """The graph takes whole images, so metrics of a sliding window do not apply to it."""
    checkpoint = load(vit_checkpoint)
    checkpoint.recipe["inference"]["window"] = [64, 96]
    found = export_module._metrics(checkpoint)
    assert set(found) == {"reported"}
    assert found["reported"].startswith("mIoU 0.200 over 4 of 5 classes with a sliding window of 96x64")
    card = model_card(read_manifest(vit_bundle).model_copy(update={"metrics": found}))
    assert f"Reported: {found['reported']}." in card


def test_miou_names_its_classes_and_the_mean_over_those_in_the_labels() -> None:
    per_class = {"sky": 0.75, "road": 0.6, "tree": 0.0, "sea": None}
    metrics = {"miou": 0.45, "miou_truth_classes": 0.675, "per_class": per_class}
    assert miou_classes(metrics) == " over 3 of 4 classes (0.675 over those in the labels)"
    assert miou_classes({"miou": 0.45, "per_class": per_class}) == " over 3 of 4 classes"
    assert miou_classes({"miou": 0.45}) == ""


def test_artifact_has_checksum_size_and_measurements(vit_bundle: Path, vit_checkpoint: Path) -> None:
    manifest = read_manifest(vit_bundle)
    artifact, graph = manifest.artifacts[0], vit_bundle / "model.onnx"
    assert (artifact.sha256, artifact.bytes) == (sha256_of(graph), graph.stat().st_size)
    assert re.fullmatch(r"\d{8}T\d{6}-[0-9a-f]{8}", manifest.version)
    assert manifest.version.endswith(sha256_of(vit_checkpoint)[:8])
    assert 0.999 <= artifact.agreement.mask <= 1
    assert artifact.speed.ms_per_image > 0
    verified = verify(vit_bundle)
    assert verified.mask_agreement == artifact.agreement.mask
    assert verified.images == 3


def test_graph_files_contain_name_version_and_classes(vit_bundle: Path) -> None:
    manifest = read_manifest(vit_bundle)
    for artifact in manifest.artifacts:
        props = {each.key: each.value for each in onnx.load(vit_bundle / artifact.file).metadata_props}
        assert (props["maskloop.name"], props["maskloop.version"]) == ("places", manifest.version)
        classes = [(each["id"], each["name"], tuple(each["color"])) for each in json.loads(props["maskloop.classes"])]
        assert classes == [(entry.id, entry.name, entry.color) for entry in manifest.classes]


def test_probe_contains_pytorchs_masks(convnet_bundle: Path, convnet_checkpoint: Path) -> None:
    predict = eager(predictor_of(convnet_checkpoint))
    with np.load(convnet_bundle / "probe.npz") as probe:
        shapes = [probe[f"image_{number}"].shape for number in range(4)]
        for number in range(4):
            mask, *_ = predict(probe[f"image_{number}"][None])
            assert np.array_equal(mask[0], probe[f"mask_{number}"])
    assert shapes == [(96, 128, 3), (145, 79, 3), (31, 161, 3), (120, 240, 3)], (
        "multiples; no multiples; one row of cells; larger than the long side"
    )


def test_weights_can_be_fp16_and_the_checkpoint_left_out(convnet_bundle: Path) -> None:
    manifest = read_manifest(convnet_bundle)
    assert manifest.artifacts[0].weights == "fp16"
    assert manifest.artifacts[0].precision == "fp32"
    assert manifest.checkpoint is None
    assert not (convnet_bundle / "model.safetensors").exists()
    assert verify(convnet_bundle).mask_agreement >= manifest.probe.tolerance.mask_agreement


def test_model_card_has_metrics_and_classes(vit_bundle: Path) -> None:
    card = (vit_bundle / "MODEL_CARD.md").read_text()
    assert "**0.200** over 4 of 5 classes on 3 labelled images" in card
    assert "| 1 | road | `#5a5a5a` | 0.200 |" in card
    assert "| 4 | sea | `#1e4696` | absent |" in card
    assert read_manifest(vit_bundle).version in card
    assert "| Value range | 0 is black, 4095 is white in images of floats, 32, 16 or 12 bits |" in card


def test_bundle_without_a_value_range_does_not_mention_one(convnet_bundle: Path) -> None:
    assert "value_range" not in json.loads((convnet_bundle / "manifest.json").read_text())
    assert "Value range" not in (convnet_bundle / "MODEL_CARD.md").read_text()


def test_graph_beyond_the_tolerance_is_refused(
    vit_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_graph_once: Callable[..., None]
) -> None:
    def write_wrong_graph(predictor: nn.Module, file: Path, *, multiple: int, metadata: dict[str, str]) -> None:
        write_graph_once(predictor, file, multiple=multiple, metadata=metadata)
        damage(file)

    monkeypatch.setattr(export_module, "write_graph", write_wrong_graph)
    stages: list[str] = []
    with pytest.raises(BundleError, match="no bundle was written"):
        export(vit_checkpoint, tmp_path / "bundle", progress=stages.append)
    assert stages == list(STAGES[:4])
    assert list(tmp_path.iterdir()) == []


def damage(graph: Path) -> None:
    """Rotate the classes in the last layer: the graph runs, and its masks are wrong."""
    model = onnx.load(graph)
    last = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("head.classify.2.weight"))
    rolled = np.roll(onnx.numpy_helper.to_array(last), 1, axis=0)
    last.CopyFrom(onnx.numpy_helper.from_array(rolled, last.name))
    onnx.save(model, graph)


def test_invalid_checkpoint_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError):
        export(tmp_path / "model.safetensors", tmp_path / "bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
