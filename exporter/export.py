"""An export: checkpoint, predictor, graph, parity, bundle."""

# N images, H W pixels, 3 = RGB

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from exporter import probe
from exporter.artifacts import NO_DATA, PROBE_AGREEMENT, Reference, first, others
from exporter.bundle import CARD, CHECKPOINT, GRAPH, MANIFEST, PROBE, BundleError, new_bundle, sha256_of
from exporter.graph import Weights, write_graph
from exporter.judge import Judge
from exporter.manifest import (
    FORMAT_VERSION,
    Artifact,
    CheckpointFile,
    ClassEntry,
    Inference,
    Manifest,
    Precision,
    Probe,
    Provenance,
    Tile,
    Tolerance,
)
from exporter.model_card import model_card
from exporter.probe import Bytes, Ids, Predict
from exporter.tensorrt.profile import for_onnxruntime, usual_profile
from exporter.tile import TILE_GRAPH, make_tile
from trainer.checkpoint import Checkpoint, load
from trainer.models.predictor import MaskPredictor


@dataclass(frozen=True, slots=True)
class Identity:
    """What a bundle and its graphs are called."""

    name: str
    made: datetime
    checkpoint_sha256: str

    @property
    def version(self) -> str:
        """UTC time and the checkpoint's first digits."""
        return f"{self.made:%Y%m%dT%H%M%S}-{self.checkpoint_sha256[:8]}"


STAGES = ("load", "trace", "ask PyTorch", "compare", "write")


def export(
    checkpoint_file: Path,
    out: Path,
    *,
    name: str = "",
    parent: str | None = None,
    weights: Weights = "fp32",
    precisions: Sequence[Precision] = ("fp32",),
    data: Path | None = None,
    with_checkpoint: bool = True,
    about: str = "",
    progress: Callable[[str], object] = str,
    refused: Callable[[str], object] = str,
) -> Manifest:
    """Make a bundle of a checkpoint. It appears complete at `out`, or not at all.

    Args:
        checkpoint_file: A run's model.safetensors.
        out: The folder to make; it must not exist.
        name: For people; by default the encoder's name.
        parent: Version of the bundle that training started from.
        weights: How the fp32 graph stores large tensors; the arithmetic is fp32 either way.
        precisions: Of the graphs. fp32 is always there, as it runs everywhere; for a network with attention, so is an
            fp32 graph for onnxruntime that needs less memory.
        data: The data set that the network was trained on: its `val` images judge the graphs, and int8 learns ranges
            from the others.
        with_checkpoint: Put the checkpoint in, so that training can go on from the bundle alone.
        about: Markdown for the model card: what only the maker knows.
        progress: Called with the name of each stage of STAGES as it begins.
        refused: Called with the reason for each graph beside fp32 that was made and not kept.

    Returns:
        The manifest that was written.

    Raises:
        CheckpointError: No checkpoint.
        BundleError: `out` exists, the fp32 graph differs from PyTorch beyond its tolerance, or int8 is asked for
            without data.
        DataError, DatasetError, ImageError: The data set cannot judge this checkpoint.
    """
    if "int8" in precisions and data is None:
        raise BundleError(NO_DATA)
    with new_bundle(out) as folder, tempfile.TemporaryDirectory() as elsewhere:
        progress("load")
        checkpoint = load(checkpoint_file)
        inference = _inference(checkpoint)
        predictor = MaskPredictor(checkpoint.model, long_side=inference.long_side).eval()
        identity = Identity(
            name or checkpoint.recipe["model"]["encoder"], datetime.now(UTC), sha256_of(checkpoint_file)
        )
        facts = _facts(identity, checkpoint)

        progress("trace")
        full = Path(elsewhere) / GRAPH
        write_graph(predictor, full, multiple=inference.multiple, facts=facts)

        progress("ask PyTorch")
        reference = _reference(predictor, checkpoint, data)
        probe.write_probe(folder / PROBE, reference.answers[: len(reference.images)])

        progress("compare")
        graphs = [
            first(full, folder, weights, reference),
            *others(full, folder, weights, precisions, reference, refused=refused),
        ]

        tile = _tile(checkpoint, folder, facts)

        progress("write")
        if with_checkpoint:
            shutil.copyfile(checkpoint_file, folder / CHECKPOINT)
        manifest = replace(_manifest(identity, checkpoint, graphs, folder, parent), tile=tile)
        (folder / CARD).write_text(model_card(manifest, about), encoding="utf-8")
        (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    return manifest


def _reference(predictor: MaskPredictor, checkpoint: Checkpoint, data: Path | None) -> Reference:
    images = probe.probe_images(multiple=predictor.segmenter.size_multiple, long_side=predictor.long_side)
    predict = eager(predictor)
    judge = Judge(data, checkpoint.taxonomy, checkpoint.recipe["data"], predict) if data else None
    return Reference(images, probe.ask(predict, images), judge)


def eager(predictor: nn.Module) -> Predict:
    """PyTorch behind the same face as onnxruntime."""

    def predict(image_NHW3: Bytes) -> tuple[Ids, Bytes]:
        with torch.inference_mode():
            mask_NHW, confidence_NHW = predictor(torch.from_numpy(np.array(image_NHW3)))
        mask: Ids = mask_NHW.numpy()
        return mask.astype(np.uint8 if mask.dtype == np.uint8 else np.uint16), confidence_NHW.numpy()

    return predict


def _tile(checkpoint: Checkpoint, folder: Path, facts: Mapping[str, str]) -> Tile | None:
    """The window's graph, where the run judged by windows."""
    rule = checkpoint.recipe["inference"]
    if not any(rule.get("window", ())):
        return None
    window = rule["window"][0], rule["window"][1]
    return make_tile(checkpoint.model, folder / TILE_GRAPH, window=window, stride=rule["window_stride"], facts=facts)


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


def _facts(identity: Identity, checkpoint: Checkpoint) -> dict[str, str]:
    """What a bare graph file says of itself."""
    return {
        "maskloop.name": identity.name,
        "maskloop.version": identity.version,
        "maskloop.classes": json.dumps([dataclasses.asdict(entry) for entry in _classes(checkpoint)]),
    }


def _manifest(
    identity: Identity,
    checkpoint: Checkpoint,
    graphs: Sequence[Artifact],
    folder: Path,
    parent: str | None,
) -> Manifest:
    """What is known of the checkpoint and of the files that lie in `folder`."""
    return Manifest(
        format_version=FORMAT_VERSION,
        name=identity.name,
        version=identity.version,
        created_at=f"{identity.made:%Y-%m-%dT%H:%M:%SZ}",
        classes=_classes(checkpoint),
        ignore_index=checkpoint.taxonomy.ignore_index,
        inference=_inference(checkpoint),
        metrics=_metrics(checkpoint),
        provenance=Provenance(
            parent=parent,
            recipe=checkpoint.recipe,
            data_fingerprint=checkpoint.data_fingerprint,
            code_version=checkpoint.code_version,
        ),
        probe=_probe(folder / PROBE, PROBE_AGREEMENT[graphs[0].weights]),
        artifacts=tuple(graphs),
        checkpoint=_checkpoint_file(folder / CHECKPOINT),
        tensorrt=for_onnxruntime(graphs[0].file, graphs[0].sha256, usual_profile(_inference(checkpoint).long_side)),
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
