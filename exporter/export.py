"""An export: checkpoint, predictor, graph, parity, bundle."""

# N images, H W pixels, 3 = RGB

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from exporter import probe
from exporter.bundle import CARD, CHECKPOINT, GRAPH, MANIFEST, PROBE, BundleError, new_bundle, sha256_of
from exporter.graph import OPSET, Weights, write_graph
from exporter.manifest import (
    FORMAT_VERSION,
    Agreement,
    Artifact,
    CheckpointFile,
    ClassEntry,
    Inference,
    Manifest,
    Probe,
    Provenance,
    Tolerance,
)
from exporter.model_card import model_card
from exporter.probe import Answer, Bytes, Ids, Predict
from exporter.runtime import OnnxPredictor, measure_speed
from trainer.checkpoint import Checkpoint, load
from trainer.models.predictor import MaskPredictor

MASK_AGREEMENT: dict[Weights, float] = {"fp32": 0.999, "fp16": 0.995}
"""Least fraction of equal mask pixels between PyTorch and onnxruntime in each probe image, by how weights are stored.

PyTorch computes with the full weights in either case, so rounding them counts as a difference. The probe's scenes are
nothing that a network was trained for: its near-ties make them a sharper test than photographs are."""
STAGES = ("load", "trace", "compare", "measure", "write")


def export(
    checkpoint_file: Path,
    out: Path,
    *,
    name: str = "",
    parent: str | None = None,
    weights: Weights = "fp32",
    with_checkpoint: bool = True,
    about: str = "",
    progress: Callable[[str], object] = str,
) -> Manifest:
    """Make a bundle of a checkpoint. It appears complete at `out`, or not at all.

    Args:
        checkpoint_file: A run's model.safetensors.
        out: The folder to make; it must not exist.
        name: For people; by default the encoder's name.
        parent: Version of the bundle that training started from.
        weights: How the graph stores large tensors; the arithmetic is fp32 either way.
        with_checkpoint: Put the checkpoint in, so that training can go on from the bundle alone.
        about: Markdown for the model card: what only the maker knows.
        progress: Called with the name of each stage of STAGES as it begins.

    Returns:
        The manifest that was written.

    Raises:
        CheckpointError: No checkpoint.
        BundleError: `out` exists, or the graph differs from PyTorch beyond MASK_AGREEMENT.
    """
    with new_bundle(out) as folder:
        progress("load")
        checkpoint = load(checkpoint_file)
        inference = _inference(checkpoint)
        predictor = MaskPredictor(checkpoint.model, long_side=inference.long_side).eval()

        progress("trace")
        write_graph(predictor, folder / GRAPH, multiple=inference.multiple, weights=weights)

        progress("compare")
        images = probe.probe_images(multiple=inference.multiple, long_side=inference.long_side)
        expected = probe.ask(eager(predictor), images)
        agreement = _compare(expected, probe.ask(OnnxPredictor(folder / GRAPH), images), MASK_AGREEMENT[weights])
        probe.write_probe(folder / PROBE, expected[: len(images)])

        progress("measure")
        artifact = _artifact(folder / GRAPH, weights, agreement)

        progress("write")
        if with_checkpoint:
            shutil.copyfile(checkpoint_file, folder / CHECKPOINT)
        manifest = _manifest(checkpoint, inference, artifact, folder, name=name, parent=parent)
        (folder / CARD).write_text(model_card(manifest, about), encoding="utf-8")
        (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    return manifest


def eager(predictor: nn.Module) -> Predict:
    """PyTorch behind the same face as onnxruntime."""

    def predict(image_NHW3: Bytes) -> tuple[Ids, Bytes]:
        with torch.inference_mode():
            mask_NHW, confidence_NHW = predictor(torch.from_numpy(np.ascontiguousarray(image_NHW3)))
        mask: Ids = mask_NHW.numpy()
        return mask.astype(np.uint8 if mask.dtype == np.uint8 else np.uint16), confidence_NHW.numpy()

    return predict


def _metrics(checkpoint: Checkpoint) -> dict[str, Any]:
    """The run's figures, if they are of whole images, as the graph takes them: a sliding window has others."""
    height, width = checkpoint.recipe["inference"].get("window", (0, 0))
    if not height or "miou" not in checkpoint.metrics:
        return checkpoint.metrics
    text = (
        f"mIoU {checkpoint.metrics['miou']:.3f} by a sliding window of {width}x{height} pixels; this graph takes whole "
        "images, on which it was not measured"
    )
    return {"reported": text}


def _manifest(
    checkpoint: Checkpoint, inference: Inference, artifact: Artifact, folder: Path, *, name: str, parent: str | None
) -> Manifest:
    """What is known of the checkpoint and of the files that lie in `folder`."""
    now = datetime.now(UTC)
    return Manifest(
        format_version=FORMAT_VERSION,
        name=name or checkpoint.recipe["model"]["encoder"],
        version=f"{now:%Y%m%dT%H%M%S}-{artifact.sha256[:8]}",
        created_at=f"{now:%Y-%m-%dT%H:%M:%SZ}",
        classes=_classes(checkpoint),
        ignore_index=checkpoint.taxonomy.ignore_index,
        inference=inference,
        metrics=_metrics(checkpoint),
        provenance=Provenance(
            parent=parent,
            recipe=checkpoint.recipe,
            data_fingerprint=checkpoint.data_fingerprint,
            code_version=checkpoint.code_version,
        ),
        probe=_probe(folder / PROBE, MASK_AGREEMENT[artifact.weights]),
        artifacts=(artifact,),
        checkpoint=_checkpoint_file(folder / CHECKPOINT),
    )


def _compare(expected: list[Answer], found: list[Answer], needed: float) -> Agreement:
    agreement = Agreement(
        mask=probe.mask_agreement([answer.mask for answer in expected], [answer.mask for answer in found]),
        confidence_max_abs=probe.confidence_difference(expected, found),
    )
    if agreement.mask < needed:
        raise BundleError(
            f"the graph's masks equal PyTorch's at {agreement.mask:.5f} of an image's pixels, and {needed} are "
            "needed; no bundle was written. With --weights fp16, try fp32; otherwise this torch or onnxruntime treats "
            "the network differently: try the versions of requirements.lock"
        )
    return agreement


def _artifact(graph: Path, weights: Weights, agreement: Agreement) -> Artifact:
    return Artifact(
        file=graph.name,
        precision="fp32",
        weights=weights,
        sha256=sha256_of(graph),
        opset=OPSET,
        agreement=agreement,
        bytes=graph.stat().st_size,
        speed=measure_speed(graph, threads=torch.get_num_threads()),
    )


def _inference(checkpoint: Checkpoint) -> Inference:
    long_side = checkpoint.recipe["inference"]["long_side"]
    return Inference(rule="whole", long_side=long_side, multiple=checkpoint.model.size_multiple)


def _classes(checkpoint: Checkpoint) -> tuple[ClassEntry, ...]:
    pairs = zip(checkpoint.taxonomy.names, checkpoint.taxonomy.colors, strict=True)
    return tuple(ClassEntry(id=number, name=name, color=color) for number, (name, color) in enumerate(pairs))


def _probe(file: Path, mask_agreement: float) -> Probe:
    return Probe(file=file.name, sha256=sha256_of(file), tolerance=Tolerance(mask_agreement=mask_agreement))


def _checkpoint_file(file: Path) -> CheckpointFile | None:
    return CheckpointFile(file=file.name, sha256=sha256_of(file)) if file.exists() else None
