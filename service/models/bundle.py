"""Read a bundle: a folder with a manifest, graphs, a probe and a model card (specification: exporter/BUNDLE.md).

`format_version` is checked first. A missing field or an unknown value is an error that names file and field; unknown
fields are ignored.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from service.errors import BundleInvalid, StorageFailed

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
# Errors that mean a broken bundle; all others are faults of the machine.
MISSING = (FileNotFoundError, NotADirectoryError, IsADirectoryError)

Channel = Annotated[int, Field(ge=0, le=255)]
Side = Annotated[int, Field(gt=0, le=65_535)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# They become paths: only plain names are accepted.
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Part(BaseModel):
    """Base of all parts: frozen, without type conversion."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class ClassInfo(Part):
    """A class: `id` is the pixel value, `color` is RGB."""

    id: Annotated[int, Field(ge=0)]
    name: Annotated[str, Field(min_length=1)]
    color: tuple[Channel, Channel, Channel]


class Inference(Part):
    """Inference rule of the graph, which pads to `multiple` itself. `long_side` 0: native size."""

    rule: Literal["whole"]
    long_side: Annotated[int, Field(ge=0)]
    multiple: Annotated[int, Field(gt=0)]


class Tolerance(Part):
    """Minimum fraction of equal mask pixels in the probe, 0..1."""

    mask_agreement: Annotated[float, Field(gt=0, le=1)]


class Probe(Part):
    """Images and expected masks."""

    file: FileName
    sha256: Sha256
    tolerance: Tolerance


class FileSum(Part):
    """A file of the bundle and its SHA-256."""

    file: FileName
    sha256: Sha256


class Artifact(FileSum):
    """A graph."""

    precision: Literal["fp32", "fp16", "int8"]
    """Arithmetic of the graph."""
    weights: Literal["fp32", "fp16"] = "fp32"
    """Weights in the file; fp16 is converted to fp32 at load."""
    opset: Annotated[int, Field(gt=0)]
    fused_attention: Annotated[int, Field(ge=0)] | None = None
    """Number of attention blocks in onnxruntime's fused operator, which needs far less memory."""
    probe_agreement: Annotated[float, Field(ge=0, le=1)] | None = None
    """Least probe agreement; None: the probe's tolerance."""
    min_embedding_cosine: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Least cosine of the probe's embeddings; None: there are none."""


class TensorRT(Part):
    """Options of onnxruntime's TensorRT provider for the standard fp32 graph."""

    file: FileName
    cache_key: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,200}$")]
    provider_options: dict[str, str]


class Tile(FileSum):
    """The graph of one window, and the layout of the windows."""

    opset: Annotated[int, Field(gt=0)]
    window: tuple[Side, Side]
    """Height and width, pixels."""
    stride: Annotated[float, Field(gt=0, le=1)]
    """Step between windows as a fraction of the side."""


class EmbeddingOutput(Part):
    """The output with one vector for each image, in all graphs."""

    output: Literal["embedding"]
    dimensions: Annotated[int, Field(gt=0, le=65_535)]


class Manifest(Part):
    """`manifest.json`, format 1."""

    format_version: Literal[1]
    # No control characters: not all databases store NUL, and log lines must not break.
    name: Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,200}$")]
    version: Annotated[str, Field(pattern=rf"^{VERSION.pattern}$")]
    created_at: str
    classes: Annotated[list[ClassInfo], Field(min_length=1, max_length=65_535)]
    ignore_index: Annotated[int, Field(ge=0, le=65_535)]
    inference: Inference
    metrics: dict[str, Any]
    provenance: dict[str, Any]
    probe: Probe
    checkpoint: FileSum | None = None
    tile: Tile | None = None
    """Present if the run evaluated with sliding windows."""
    tensorrt: TensorRT | None = None
    embedding: EmbeddingOutput | None = None
    """None: the graphs return no embeddings."""
    artifacts: Annotated[list[Artifact], Field(min_length=1)]
    value_range: tuple[FiniteFloat, FiniteFloat] | None = None
    """Values that are black and white in images of floats, 32, 16 or 12 bits."""

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        if [c.id for c in self.classes] != list(range(len(self.classes))):
            raise ValueError("classes: ids must be 0, 1, 2, ... in order")
        if not any(a.precision == "fp32" for a in self.artifacts):
            raise ValueError("artifacts: one must have precision fp32, which runs everywhere")
        if self.value_range and self.value_range[0] >= self.value_range[1]:
            raise ValueError("value_range: black must be below white")
        if self.embedding and any(a.min_embedding_cosine is None for a in self.artifacts):
            raise ValueError("artifacts: with `embedding`, each must have min_embedding_cosine")
        return self

    @property
    def embedding_dimensions(self) -> int | None:
        """Length of the embeddings; None: the graphs return none."""
        return self.embedding.dimensions if self.embedding else None

    @property
    def miou(self) -> float | None:
        """The mean IoU that the trainer measured, 0..1."""
        value = self.metrics.get("miou")
        return float(value) if isinstance(value, int | float) else None

    @property
    def parent(self) -> str | None:
        """The version from which training started; None if invalid."""
        value = self.provenance.get("parent")
        return value if isinstance(value, str) and VERSION.fullmatch(value) else None

    @property
    def files(self) -> list[FileSum]:
        """All files with a SHA-256."""
        extra = [part for part in (self.checkpoint, self.tile) if part]
        return [*self.artifacts, FileSum(file=self.probe.file, sha256=self.probe.sha256), *extra]


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle with its manifest."""

    folder: Path
    manifest: Manifest

    @property
    def checkpoint(self) -> Path | None:
        """The checkpoint to continue training from, if any."""
        return self.folder / self.manifest.checkpoint.file if self.manifest.checkpoint else None


def read_bundle(folder: Path, *, verify: bool = True) -> Bundle:
    """Read the manifest of a bundle and, if `verify`, compare every file with its SHA-256.

    Raises BundleInvalid for an invalid manifest or a missing or changed file, StorageFailed for an unreadable file.
    """
    bundle = Bundle(folder, _manifest(folder / MANIFEST))
    if verify:
        for entry in bundle.manifest.files:
            _verify(folder / entry.file, entry.sha256)
    return bundle


def _manifest(path: Path) -> Manifest:
    try:
        raw = json.loads(path.read_bytes())
    except MISSING:
        raise BundleInvalid(f"{path} does not exist: a bundle is a folder that `exporter export` wrote") from None
    except OSError as error:
        raise _unreadable(path, error) from None
    except ValueError as error:
        raise BundleInvalid(f"{MANIFEST} is not readable JSON ({error}): export the bundle again") from None
    version = raw.get("format_version") if isinstance(raw, dict) else None
    if type(version) is not int or version != FORMAT_VERSION:
        raise BundleInvalid(
            f"{MANIFEST}: format_version is {version!r} and this service reads {FORMAT_VERSION}: "
            "export with the matching exporter, or update the service"
        )
    try:
        # JSON mode accepts lists as tuples, and converts nothing else.
        return Manifest.model_validate_json(json.dumps(raw))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "manifest"
        raise BundleInvalid(f"{MANIFEST}: {field}: {first['msg']}: export the bundle again") from None


def _verify(path: Path, sha256: str) -> None:
    try:
        with path.open("rb") as handle:
            found = hashlib.file_digest(handle, "sha256").hexdigest()
    except MISSING:
        raise BundleInvalid(f"{path.name} is listed in {MANIFEST} but missing: copy the whole bundle again") from None
    except OSError as error:
        raise _unreadable(path, error) from None
    if found != sha256:
        raise BundleInvalid(f"{path.name} does not match its sha256 in {MANIFEST}: copy or export the bundle again")


def _unreadable(path: Path, error: OSError) -> StorageFailed:
    return StorageFailed(f"{path.name} cannot be read ({error.strerror}): check the disk and the permissions")
