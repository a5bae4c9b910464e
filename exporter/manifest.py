"""manifest.json: what a bundle says about itself. The words are explained in BUNDLE.md.

Writing emits exactly this schema. Reading checks `format_version` before anything else, then every field's type;
fields that this version does not know are passed over, so that a later writer may add optional ones.
"""

import dataclasses
import json
import re
import types
import typing
from typing import Any, Literal

FORMAT_VERSION = 1
PLAIN_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")

Precision = Literal["fp32", "fp16", "int8"]
Sha256 = str
"""64 hexadecimal digits of a file's SHA-256."""


class ManifestError(ValueError):
    """A manifest that cannot be read; the message names the field and says what to do."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ClassEntry:
    """One class; its id is its place in the list and its value in a mask."""

    id: int
    name: str
    color: tuple[int, int, int]
    """RGB, [0, 255]."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Inference:
    """How the graph sees an image; for information, as the graph does all of it itself."""

    rule: Literal["whole"]
    """`whole`: the image goes through the network in one piece."""
    long_side: int
    """Pixels to which the graph resizes the longer side; 0 = the image's own size."""
    multiple: int
    """Pixels: the network's input sides are multiples of this."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """Where the model came from."""

    parent: str | None
    """Version of the bundle that training started from."""
    recipe: dict[str, Any]
    data_fingerprint: str
    code_version: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Tolerance:
    """How far a reader's own run of the probe may be from the stored masks."""

    mask_agreement: float
    """Least fraction of equal pixels, in each image, [0, 1]."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """Images and the masks that PyTorch gave for them."""

    file: str
    sha256: Sha256
    tolerance: Tolerance


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointFile:
    """The checkpoint that the graph was made from, for training to go on."""

    file: str
    sha256: Sha256


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """onnxruntime against PyTorch, measured on the probe when the bundle was made."""

    mask: float
    """Fraction of equal pixels in the image where it is least, [0, 1]."""
    confidence_max_abs: int
    """Largest difference of a confidence, in steps of 1/255."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Validation:
    """onnxruntime against PyTorch and the truth, on images of a data set's `val` split."""

    images: int
    mask: float
    """Fraction of pixels, over all images, at which PyTorch in fp32 names the same class, [0, 1]."""
    miou: float
    """This graph's, [0, 1]."""
    miou_lost: float
    """PyTorch's minus this graph's."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """Time for one image, measured when the bundle was made."""

    ms_per_image: float
    size: tuple[int, int]
    """Height and width in pixels."""
    provider: str
    threads: int


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Artifact:
    """One graph file."""

    file: str
    precision: Precision
    """Of the arithmetic. int8 stands for integers in convolutions and products with weights, and fp32 elsewhere."""
    weights: Literal["fp32", "fp16"] = "fp32"
    """How the file stores large tensors; fp16 is turned into fp32 when the file is loaded."""
    sha256: Sha256
    opset: int
    agreement: Agreement
    bytes: int
    speed: Speed
    probe_agreement: float | None = None
    """What a reader's own run of the probe must reach with this graph, [0, 1]; None = the probe's tolerance."""
    left_in_float: int | None = None
    """int8: how many convolutions and products with weights were left in fp32, as the bound on the loss asked for."""
    fused_attention: int | None = None
    """How many attentions onnxruntime's own operator computes; None = none. Such a graph is for onnxruntime
    alone."""
    validation: Validation | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Tile:
    """The graph of one window, and how windows lie."""

    file: str
    sha256: Sha256
    bytes: int
    opset: int
    window: tuple[int, int]
    """Height and width, pixels."""
    stride: float
    """Step of the window as a part of its side, (0, 1]."""
    probability_max_abs: float
    """Largest difference of a probability from PyTorch's, measured when the bundle was made."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TensorRT:
    """How onnxruntime's TensorRT provider is to run one of the graphs."""

    file: str
    """The artifact's."""
    cache_key: str
    """Changes with the graph and with the sizes that engines are built for."""
    provider_options: dict[str, Any]
    """Names and values as text; the paths of caches are the reader's to add."""

    def __post_init__(self) -> None:
        if not PLAIN_FILE_NAME.fullmatch(self.cache_key):
            raise ManifestError(f"tensorrt.cache_key: {self.cache_key!r} may name a folder, and is no plain name")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """The whole of manifest.json."""

    format_version: int
    name: str
    version: str
    """UTC time and the first digits of the checkpoint's SHA-256: `20261122T101112-ab12cd34`."""
    created_at: str
    """ISO 8601, UTC."""
    classes: tuple[ClassEntry, ...]
    ignore_index: int
    inference: Inference
    metrics: dict[str, Any]
    """As in the checkpoint: miou [0, 1], per_class {name: iou or null}, images, split. May be empty."""
    provenance: Provenance
    probe: Probe
    artifacts: tuple[Artifact, ...]
    checkpoint: CheckpointFile | None = None
    tile: Tile | None = None
    tensorrt: TensorRT | None = None

    def __post_init__(self) -> None:
        if [entry.id for entry in self.classes] != list(range(len(self.classes))) or not self.classes:
            raise ManifestError("classes: ids must be 0, 1, 2, ... in this order; export the bundle again")
        if not self.artifacts:
            raise ManifestError("artifacts: a bundle holds at least one graph; export it again")
        for file in self.files:
            if not PLAIN_FILE_NAME.fullmatch(file):
                raise ManifestError(
                    f"file {file!r}: a bundle names files of its own folder only; do not trust this one"
                )

    @property
    def files(self) -> dict[str, Sha256]:
        """Every file that the manifest vouches for, with its SHA-256."""
        entries: list[Artifact | Probe | CheckpointFile | Tile | None]
        entries = [*self.artifacts, self.probe, self.checkpoint, self.tile]
        return {entry.file: entry.sha256 for entry in entries if entry}

    def to_json(self) -> str:
        """The text of manifest.json."""
        return json.dumps(_encode(self), indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> "Manifest":
        """Read manifest.json.

        Raises:
            ManifestError: Not JSON, a `format_version` that this code does not read, or a missing or misshapen field.
        """
        try:
            fields = json.loads(text)
        except ValueError as error:
            raise ManifestError(f"manifest.json is not JSON ({error}); export the bundle again") from error
        found = fields.get("format_version") if isinstance(fields, dict) else None
        if found != FORMAT_VERSION:
            raise ManifestError(
                f"format_version: found {found!r}, this version of Maskloop reads {FORMAT_VERSION}; "
                "use the version that wrote the bundle, or export it again"
            )
        manifest: Manifest = _decode(cls, fields, "")
        return manifest


def _encode(value: Any) -> Any:
    """For json.dumps; optional fields that are None are left out."""
    if isinstance(value, tuple):
        return [_encode(item) for item in value]
    if not dataclasses.is_dataclass(value):
        return value
    pairs = ((field, getattr(value, field.name)) for field in dataclasses.fields(value))
    return {field.name: _encode(found) for field, found in pairs if found is not None or field.default is not None}


def _decode(kind: Any, value: Any, where: str) -> Any:
    """`value`, as json.loads gave it, as an instance of the annotation `kind`."""
    if dataclasses.is_dataclass(kind):
        return _decode_record(kind, value, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return None if value is None else _decode(arguments[0], value, where)
    if origin is Literal:
        if value not in arguments:
            raise ManifestError(f"{where}: {value!r} is none of {arguments}; a newer Maskloop may know it")
        return value
    if origin is tuple and isinstance(value, list):
        return _decode_tuple(arguments, value, where)
    plain = origin or kind
    accepted = (int, float) if plain is float else (list if plain is tuple else plain)
    if not isinstance(value, accepted) or isinstance(value, bool):
        raise ManifestError(f"{where}: expected {plain.__name__}, found {value!r}; export the bundle again")
    return value


def _decode_tuple(arguments: tuple[Any, ...], value: list[Any], where: str) -> tuple[Any, ...]:
    kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
    if len(kinds) != len(value):
        raise ManifestError(f"{where}: expected {len(kinds)} values, found {len(value)}; export the bundle again")
    return tuple(
        _decode(kind, item, f"{where}[{place}]") for place, (kind, item) in enumerate(zip(kinds, value, strict=True))
    )


def _decode_record(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ManifestError(f"{where}: expected an object, found {value!r}; export the bundle again")
    hints = typing.get_type_hints(kind)
    found = {}
    for field in dataclasses.fields(kind):
        path = f"{where}.{field.name}" if where else field.name
        if field.name in value:
            found[field.name] = _decode(hints[field.name], value[field.name], path)
        elif field.default is dataclasses.MISSING:
            raise ManifestError(f"{path}: missing; export the bundle again")
    return kind(**found)
