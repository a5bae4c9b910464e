"""What models say about themselves: metadata, and a configuration in Triton's words."""

from __future__ import annotations

import json
from typing import Any

from service.models.bundle import Manifest
from service.open_inference.model_repository import Found
from service.open_inference.tensor_spec import LARGEST_BATCH, Face, TensorSpec, face_of

EXTENSIONS = [
    *("binary_tensor_data", "model_configuration", "model_repository", "parameters", "schedule_policy", "statistics"),
]
PLATFORMS = {"tensor": ("onnxruntime_onnx", "onnxruntime"), "encoded": ("python", "python")}
"""Platform and backend: what Triton says about the models that `exporter triton` makes of a bundle."""
TYPES = {"BYTES": "TYPE_STRING"}


def server_metadata(version: str) -> dict[str, Any]:
    """Of the service, whose version that is."""
    return {"name": "maskloop", "version": version, "extensions": EXTENSIONS}


def model_metadata(found: Found, manifest: Manifest) -> dict[str, Any]:
    """Of a model, with the versions that may serve."""
    face = _face(found, manifest)
    return {
        "name": found.name.text,
        "versions": [str(entry.number) for entry in found.entries if entry.row.state == "ready"],
        "platform": PLATFORMS[face.kind][0],
        "inputs": [face.input.metadata()],
        "outputs": [spec.metadata() for spec in face.outputs],
    }


def model_config(found: Found, manifest: Manifest) -> dict[str, Any]:
    """Of a model: what it is made of, and its classes."""
    face = _face(found, manifest)
    platform, backend = PLATFORMS[face.kind]
    # In Triton's words, the tensor model has batches, and the encoded one a list of any length.
    batches = face.kind == "tensor"
    parameters = {
        "bundle_name": manifest.name,
        "classes": json.dumps([entry.model_dump() for entry in manifest.classes]),
        **{f"version_{entry.number}": entry.row.version for entry in found.entries},
    }
    return {
        "name": found.name.text,
        "platform": platform,
        "backend": backend,
        "max_batch_size": LARGEST_BATCH if batches else 0,
        "input": [_tensor(face.input, batches=batches)],
        "output": [_tensor(spec, batches=batches) for spec in face.outputs],
        "version_policy": {"specific": {"versions": [e.number for e in found.entries if e.row.state == "ready"]}},
        "parameters": {name: {"string_value": value} for name, value in parameters.items()},
    }


def _face(found: Found, manifest: Manifest) -> Face:
    return face_of(found.name.kind, len(manifest.classes))


def _tensor(spec: TensorSpec, *, batches: bool) -> dict[str, Any]:
    return {
        "name": spec.name,
        "data_type": TYPES.get(spec.datatype, f"TYPE_{spec.datatype}"),
        "dims": list(spec.shape[1:] if batches else spec.shape),
    }
