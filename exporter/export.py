"""Export a checkpoint to a bundle: load, export the graph, run PyTorch, compare, write."""

# N images, H W pixels, 3 = RGB

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from exporter import probe
from exporter.artifacts import NO_DATA, PROBE_AGREEMENT, Reference, write_fp32_graph, write_optional_graphs
from exporter.bundle import CARD, CHECKPOINT, GRAPH, MANIFEST, PROBE, BundleError, new_bundle, sha256_of
from exporter.graph import Weights, write_graph
from exporter.manifest import (
    FORMAT_VERSION,
    Artifact,
    CheckpointFile,
    ClassEntry,
    Embedding,
    Inference,
    Manifest,
    Precision,
    Probe,
    Provenance,
    Tile,
    Tolerance,
)
from exporter.model_card import miou_classes, model_card
from exporter.probe import Bytes, Outputs, Predict
from exporter.tensorrt.profile import for_onnxruntime, usual_profile
from exporter.tile_graph import TILE_GRAPH, export_tile_graph
from exporter.validation import Validator
from trainer.checkpoint import Checkpoint, load
from trainer.models.predictor import MaskPredictor

STAGES = ("load", "trace", "run PyTorch", "compare", "write")


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
    at_work: Callable[[], object] = bool,
    skipped: Callable[[str], object] = str,
) -> Manifest:
    """Export a checkpoint to a bundle. The folder `out` appears complete or not at all.

    Args:
        checkpoint_file: model.safetensors of a run.
        out: the folder to create; it must not exist.
        name: display name; default: the encoder's name.
        parent: version of the bundle that training started from.
        weights: storage of large tensors in fp32 graphs, whose arithmetic stays fp32.
        precisions: graphs to write; fp32 is always written, also with fused attention if the network has attention.
        data: the data set of the training: its `val` images measure graphs, the others calibrate int8.
        with_checkpoint: include the checkpoint, to continue training from the bundle.
        about: Markdown to add to the model card.
        progress: called at the start of each of STAGES.
        at_work: called after each image on which a graph or PyTorch was measured.
        skipped: called with the reason for each requested graph that is not kept.

    Raises:
        CheckpointError: The checkpoint is invalid.
        BundleError: `out` exists, the fp32 graph differs too much from PyTorch, or int8 lacks data.
        DataError, DatasetError, ImageError: The data set cannot be read or does not fit the checkpoint.
    """
    if "int8" in precisions and data is None:
        raise BundleError(NO_DATA)
    with new_bundle(out) as folder:
        progress("load")
        source = _Source.load(checkpoint_file, name)
        exported = _write_graphs(
            source, folder, weights, precisions, data, progress=progress, at_work=at_work, skipped=skipped
        )
        progress("write")
        if with_checkpoint:
            shutil.copyfile(checkpoint_file, folder / CHECKPOINT)
        manifest = _manifest(source, *exported, folder, parent)
        (folder / CARD).write_text(model_card(manifest, about), encoding="utf-8")
        (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    return manifest


@dataclass(frozen=True, slots=True)
class _Source:
    """A checkpoint, and the name and version of its bundle."""

    checkpoint: Checkpoint
    name: str
    created: datetime
    version: str

    @classmethod
    def load(cls, file: Path, name: str) -> "_Source":
        checkpoint, now = load(file), datetime.now(UTC)
        version = f"{now:%Y%m%dT%H%M%S}-{sha256_of(file)[:8]}"
        return cls(checkpoint, name or checkpoint.recipe["model"]["encoder"], now, version)

    @property
    def classes(self) -> tuple[ClassEntry, ...]:
        pairs = zip(self.checkpoint.taxonomy.names, self.checkpoint.taxonomy.colors, strict=True)
        return tuple(ClassEntry(id=number, name=name, color=color) for number, (name, color) in enumerate(pairs))

    @property
    def metadata(self) -> dict[str, str]:
        """metadata_props, which identify the graph outside the bundle."""
        return {
            "maskloop.name": self.name,
            "maskloop.version": self.version,
            "maskloop.classes": json.dumps([entry.model_dump() for entry in self.classes]),
        }


def _write_graphs(
    source: _Source,
    folder: Path,
    weights: Weights,
    precisions: Sequence[Precision],
    data: Path | None,
    *,
    progress: Callable[[str], object],
    at_work: Callable[[], object],
    skipped: Callable[[str], object],
) -> tuple[list[Artifact], Tile | None]:
    checkpoint = source.checkpoint
    model, recipe = checkpoint.model, checkpoint.recipe
    predictor = MaskPredictor(model, long_side=recipe["inference"]["long_side"]).eval()
    with tempfile.TemporaryDirectory() as scratch:
        progress("trace")
        exported = Path(scratch) / GRAPH
        write_graph(predictor, exported, multiple=model.size_multiple, metadata=source.metadata)

        progress("run PyTorch")
        images = probe.probe_images(multiple=model.size_multiple, long_side=predictor.long_side)
        predict = eager(predictor)
        classes, scale = checkpoint.taxonomy, checkpoint.value_range
        validator = Validator(data, classes, recipe["data"], predict, scale, at_work=at_work) if data else None
        reference = Reference(images, probe.run(predict, images), validator)
        probe.write_probe(folder / PROBE, reference.predictions[: len(images)])

        progress("compare")
        artifacts = [
            write_fp32_graph(exported, folder, weights, reference),
            *write_optional_graphs(exported, folder, weights, precisions, reference, skipped=skipped),
        ]
    return artifacts, _export_tile(checkpoint, folder, source.metadata)


def eager(predictor: nn.Module) -> Predict:
    """PyTorch as a callable like OnnxPredictor."""

    def predict(image_NHW3: Bytes) -> Outputs:
        with torch.inference_mode():
            mask, *others = (each.numpy() for each in predictor(torch.from_numpy(np.array(image_NHW3))))
        return Outputs(mask.astype(np.uint8 if mask.dtype == np.uint8 else np.uint16), *others)

    return predict


def _export_tile(checkpoint: Checkpoint, folder: Path, metadata: Mapping[str, str]) -> Tile | None:
    """Export one window's graph, if the run was evaluated with a sliding window."""
    inference = checkpoint.recipe["inference"]
    height, width = inference.get("window", (0, 0))
    if not height:
        return None
    file, stride = folder / TILE_GRAPH, inference["window_stride"]
    return export_tile_graph(checkpoint.model, file, window=(height, width), stride=stride, metadata=metadata)


def _metrics(checkpoint: Checkpoint) -> dict[str, Any]:
    """The run's metrics, or a sentence if a sliding window was used: the graph takes whole images."""
    height, width = checkpoint.recipe["inference"].get("window", (0, 0))
    if not height or "miou" not in checkpoint.metrics:
        return checkpoint.metrics
    text = (
        f"mIoU {checkpoint.metrics['miou']:.3f}{miou_classes(checkpoint.metrics)} with a sliding window of "
        f"{width}x{height} pixels; this graph takes whole images, on which it was not measured"
    )
    return {"reported": text}


def _manifest(
    source: _Source, artifacts: Sequence[Artifact], tile: Tile | None, folder: Path, parent: str | None
) -> Manifest:
    checkpoint, graph = source.checkpoint, artifacts[0]
    tolerance = Tolerance(mask_agreement=PROBE_AGREEMENT[graph.weights])
    kept, long_side = folder / CHECKPOINT, checkpoint.recipe["inference"]["long_side"]
    return Manifest(
        format_version=FORMAT_VERSION,
        name=source.name,
        version=source.version,
        created_at=f"{source.created:%Y-%m-%dT%H:%M:%SZ}",
        classes=source.classes,
        ignore_index=checkpoint.taxonomy.ignore_index,
        inference=Inference(rule="whole", long_side=long_side, multiple=checkpoint.model.size_multiple),
        metrics=_metrics(checkpoint),
        provenance=Provenance(
            parent=parent,
            recipe=checkpoint.recipe,
            data_fingerprint=checkpoint.data_fingerprint,
            code_version=checkpoint.code_version,
        ),
        probe=Probe(file=PROBE, sha256=sha256_of(folder / PROBE), tolerance=tolerance),
        artifacts=tuple(artifacts),
        checkpoint=CheckpointFile(file=CHECKPOINT, sha256=sha256_of(kept)) if kept.exists() else None,
        tile=tile,
        embedding=Embedding(output="embedding", dimensions=checkpoint.model.encoder.channels[-1]),
        value_range=checkpoint.value_range,
        tensorrt=for_onnxruntime(graph.file, graph.sha256, usual_profile(long_side)),
    )
