"""Read a bundle: one folder with a manifest, a graph, a probe and a model card.

Version gate first, then strictness: `format_version` decides whether the rest is read at all; after that a missing
field or an unknown value is refused with the file and the field named, while an unknown *extra* field is passed over,
so that a later writer of the same format may add to it. `exporter/BUNDLE.md` is the specification.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from service.errors import BundleInvalid, StorageFailed

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
# Of the errors of a file system, those that tell about the bundle; all others tell about the machine.
MISSING = (FileNotFoundError, NotADirectoryError, IsADirectoryError)

Channel = Annotated[int, Field(ge=0, le=255)]
Side = Annotated[int, Field(gt=0, le=65_535)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# Names of files inside the bundle, and the version, become paths: nothing but plain names is read.
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Part(BaseModel):
    """What all parts of a manifest share: frozen, and no guessing of types."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class ClassInfo(Part):
    """One class: `id` is the pixel value; `color` is RGB."""

    id: Annotated[int, Field(ge=0)]
    name: Annotated[str, Field(min_length=1)]
    color: tuple[Channel, Channel, Channel]


class Inference(Part):
    """How the graph wants to be called. `long_side` 0: native size; `multiple` is the graph's own affair."""

    rule: Literal["whole"]
    long_side: Annotated[int, Field(ge=0)]
    multiple: Annotated[int, Field(gt=0)]


class Tolerance(Part):
    """What counts as the same answer: the least share of equal mask pixels, 0..1."""

    mask_agreement: Annotated[float, Field(gt=0, le=1)]


class Probe(Part):
    """Images and the masks that they must give."""

    file: FileName
    sha256: Sha256
    tolerance: Tolerance


class FileSum(Part):
    """A file of the bundle and its sha256."""

    file: FileName
    sha256: Sha256


class Artifact(FileSum):
    """One graph."""

    precision: Literal["fp32", "fp16", "int8"]
    """Of the arithmetic."""
    weights: Literal["fp32", "fp16"] = "fp32"
    """Of the file; half-precision weights are widened when the graph is loaded."""
    opset: Annotated[int, Field(gt=0)]
    fused_attention: Annotated[int, Field(ge=0)] | None = None
    """How many attentions onnxruntime's own operator computes, in far less memory."""
    probe_agreement: Annotated[float, Field(ge=0, le=1)] | None = None
    """What this graph must reach on the probe; None: the probe's own tolerance."""


class TensorRT(Part):
    """How onnxruntime's TensorRT provider is to run the fp32 graph of standard operators."""

    file: FileName
    cache_key: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,200}$")]
    provider_options: dict[str, str]


class Tile(FileSum):
    """The graph of one window, and how windows lie over an image."""

    opset: Annotated[int, Field(gt=0)]
    window: tuple[Side, Side]
    """Height and width, pixels."""
    stride: Annotated[float, Field(gt=0, le=1)]
    """Step of the window as a part of its side."""


class Manifest(Part):
    """`manifest.json`, format 1."""

    format_version: Literal[1]
    # For people. Not all databases keep a NUL, and no line of a log should end in the middle of it.
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
    """Where the run judged by windows."""
    tensorrt: TensorRT | None = None
    artifacts: Annotated[list[Artifact], Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        if [c.id for c in self.classes] != list(range(len(self.classes))):
            raise ValueError("classes: ids must be 0, 1, 2, ... in order")
        if not any(a.precision == "fp32" for a in self.artifacts):
            raise ValueError("artifacts: one must have precision fp32, which runs everywhere")
        return self

    @property
    def miou(self) -> float | None:
        """The mean IoU that the trainer measured, 0..1."""
        value = self.metrics.get("miou")
        return float(value) if isinstance(value, int | float) else None

    @property
    def parent(self) -> str | None:
        """The version it was trained on from; None also where what stands there can be no version."""
        value = self.provenance.get("parent")
        return value if isinstance(value, str) and VERSION.fullmatch(value) else None

    @property
    def files(self) -> list[FileSum]:
        """Every file that the manifest vouches for."""
        extra = [part for part in (self.checkpoint, self.tile) if part]
        return [*self.artifacts, FileSum(file=self.probe.file, sha256=self.probe.sha256), *extra]


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose manifest has been read."""

    folder: Path
    manifest: Manifest

    @property
    def checkpoint(self) -> Path | None:
        """The weights it came from, to train on from; None where the bundle was written without them."""
        return self.folder / self.manifest.checkpoint.file if self.manifest.checkpoint else None


def read_bundle(folder: Path, *, verify: bool = True) -> Bundle:
    """Read the manifest of a bundle and, unless told not to, compare every file with its sha256.

    Raises:
        BundleInvalid: No bundle, another format, a field missing or unknown, a file missing or changed.
        StorageFailed: A file is there and the disk does not give it, which says nothing about the bundle.
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
        raise _unread(path, error) from None
    except ValueError as error:
        raise BundleInvalid(f"{MANIFEST} is not readable JSON ({error}): export the bundle again") from None
    version = raw.get("format_version") if isinstance(raw, dict) else None
    if type(version) is not int or version != FORMAT_VERSION:
        raise BundleInvalid(
            f"{MANIFEST}: format_version is {version!r} and this service reads {FORMAT_VERSION}: "
            "export with the matching exporter, or update the service"
        )
    try:
        # JSON mode of strictness: lists may stand for tuples, nothing else is converted.
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
        raise BundleInvalid(f"{path.name} is named in {MANIFEST} and missing: copy the whole bundle again") from None
    except OSError as error:
        raise _unread(path, error) from None
    if found != sha256:
        raise BundleInvalid(f"{path.name} does not match its sha256 in {MANIFEST}: copy or export the bundle again")


def _unread(path: Path, error: OSError) -> StorageFailed:
    return StorageFailed(f"{path.name} cannot be read ({error.strerror}): look after disk and permissions")
