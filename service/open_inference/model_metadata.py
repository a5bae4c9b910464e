"""Metadata of models, and the model configuration in Triton's format."""

from __future__ import annotations

import json
from typing import Any

from service.models.bundle import Manifest
from service.open_inference.model_repository import ResolvedModel
from service.open_inference.tensor_spec import MAX_BATCH, ModelSignature, TensorSpec, signature_of
from service.segmentation.output.class_table import ClassTable

PLATFORMS = {"tensor": ("onnxruntime_onnx", "onnxruntime"), "encoded": ("python", "python")}
"""Platform and backend, as Triton reports them for models of `exporter triton`."""
TRITON_TYPES = {"BYTES": "TYPE_STRING"}


def model_metadata(found: ResolvedModel, manifest: Manifest) -> dict[str, Any]:
    """Return the metadata of a model, with its ready versions."""
    signature = _signature(found, manifest)
    return {
        "name": found.name.text,
        "versions": [str(number) for number in _ready_versions(found)],
        "platform": PLATFORMS[signature.kind][0],
        "inputs": [signature.input.metadata()],
        "outputs": [spec.metadata() for spec in signature.outputs],
    }


def model_config(found: ResolvedModel, manifest: Manifest, shown: ClassTable) -> dict[str, Any]:
    """Return the configuration of a model, with its classes under their present names and colours."""
    signature = _signature(found, manifest)
    platform, backend = PLATFORMS[signature.kind]
    # In Triton's terms, the tensor model supports batching; the encoded model takes a list instead.
    batching = signature.kind == "tensor"
    pairs = zip(shown.names, shown.colors, strict=True)
    classes = [{"id": class_id, "name": name, "color": color} for class_id, (name, color) in enumerate(pairs)]
    parameters = {
        "bundle_name": manifest.name,
        "classes": json.dumps(classes),
        **{f"version_{entry.number}": entry.row.version for entry in found.entries},
    }
    return {
        "name": found.name.text,
        "platform": platform,
        "backend": backend,
        "max_batch_size": MAX_BATCH if batching else 0,
        "input": [_tensor(signature.input, batching=batching)],
        "output": [_tensor(spec, batching=batching) for spec in signature.outputs],
        "version_policy": {"specific": {"versions": _ready_versions(found)}},
        "parameters": {name: {"string_value": value} for name, value in parameters.items()},
    }


def _signature(found: ResolvedModel, manifest: Manifest) -> ModelSignature:
    return signature_of(found.name.kind, len(manifest.classes), manifest.embedding_dimensions)


def _ready_versions(found: ResolvedModel) -> list[int]:
    return [entry.number for entry in found.entries if entry.row.state == "ready"]


def _tensor(spec: TensorSpec, *, batching: bool) -> dict[str, Any]:
    return {
        "name": spec.name,
        "data_type": TRITON_TYPES.get(spec.datatype, f"TYPE_{spec.datatype}"),
        "dims": list(spec.shape[1:] if batching else spec.shape),
    }
