"""manifest.json of a bundle as pydantic models; BUNDLE.md explains the fields.

`format_version` is checked first. A missing field or an unknown value is an error; unknown fields are ignored, so that
a later writer may add optional ones.
"""

import json
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

FORMAT_VERSION: Literal[1] = 1

Precision = Literal["fp32", "fp16", "int8"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# They become paths: `/` and a leading `.` are rejected.
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$")]


class ManifestError(ValueError):
    """An invalid manifest; the message names the field and the remedy."""


class _Model(BaseModel):
    """Immutable, without type conversion; docstrings of fields become the schema's descriptions."""

    model_config = ConfigDict(frozen=True, strict=True, use_attribute_docstrings=True)

    @model_serializer(mode="wrap")
    def _omit_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out optional fields that are None; a required one stays null."""
        fields = type(self).model_fields
        return {k: value for k, value in handler(self).items() if value is not None or fields[k].is_required()}


class ClassEntry(_Model):
    """One class; its id is its position in the list and its value in a mask."""

    id: int
    name: str
    color: tuple[int, int, int]
    """RGB, [0, 255]."""


class Inference(_Model):
    """How the graph processes an image; informative, since the graph contains these steps."""

    rule: Literal["whole"]
    """`whole`: the network processes the image in one piece."""
    long_side: int
    """Pixels to which the graph resizes the longer side; 0 = the image's own size."""
    multiple: int
    """Pixels: width and height of the network's input are multiples of this."""


class Provenance(_Model):
    """Origin of the model."""

    parent: str | None
    """Version of the bundle that training started from."""
    recipe: dict[str, Any]
    """The complete resolved training recipe."""
    data_fingerprint: str
    """Fingerprint of the training data."""
    code_version: str
    """Version of the code that trained the model."""


class Tolerance(_Model):
    """Allowed difference between a reader's masks of the probe images and the stored masks."""

    mask_agreement: float
    """Minimum fraction of equal pixels in each image, [0, 1]."""


class _File(_Model):
    file: FileName
    sha256: Sha256


class CheckpointFile(_File):
    """The exported checkpoint, from which training can continue."""


class Probe(_File):
    """Test images and PyTorch's masks for them."""

    tolerance: Tolerance


class Agreement(_Model):
    """Agreement of onnxruntime with PyTorch, measured on the probe images at export."""

    mask: float
    """Fraction of equal mask pixels in the worst image, [0, 1]."""
    confidence_max_abs: int
    """Largest absolute difference of a confidence value, in steps of 1/255."""
    embedding_cosine: float | None = None
    """Smallest cosine of an image's embedding with PyTorch's, [-1, 1]; absent: there are no embeddings."""


class Validation(_Model):
    """Accuracy of a graph on images of a data set's `val` split."""

    images: int
    mask: float
    """Fraction of pixels, over all images, at which PyTorch in fp32 predicts the same class, [0, 1]."""
    miou: float
    """Mean IoU of this graph over the classes in labels or masks, [0, 1]."""
    classes: int | None = None
    """Number of these classes; absent: earlier versions counted those in the labels."""
    miou_lost: float
    """Mean IoU of PyTorch minus that of this graph, both over the classes in the labels."""


class Speed(_Model):
    """Inference time, measured at export."""

    ms_per_image: float
    size: tuple[int, int]
    """Height and width of the image, pixels."""
    provider: str
    """onnxruntime's execution provider."""
    threads: int
    """Threads within one operator."""


class Artifact(_Model):
    """One graph file."""

    file: FileName
    precision: Precision
    """Arithmetic. int8: integers in convolutions and products with weights, fp32 elsewhere."""
    weights: Literal["fp32", "fp16"] = "fp32"
    """Storage of large fp32 tensors; fp16 is converted to fp32 at load."""
    sha256: Sha256
    opset: int
    agreement: Agreement
    bytes: int
    speed: Speed
    probe_agreement: float | None = None
    """Minimum fraction of equal probe pixels with this graph, [0, 1]; absent: the probe's tolerance."""
    min_embedding_cosine: float | None = None
    """Minimum cosine of the embedding of each probe image with the stored one, [-1, 1]; absent: there are none."""
    left_in_float: int | None = None
    """int8: number of convolutions and products with weights that stay in fp32 to keep the mIoU."""
    fused_attention: int | None = None
    """Number of attention blocks fused into onnxruntime's own operator, which other runtimes lack; absent: none."""
    validation: Validation | None = None


class Tile(_File):
    """The graph of one window, for sliding-window inference."""

    bytes: int
    opset: int
    window: tuple[int, int]
    """Height and width, pixels."""
    stride: float
    """Step between windows as a fraction of the window's side, (0, 1]."""
    probability_max_abs: float
    """Largest absolute difference of a probability between onnxruntime and PyTorch, measured at export."""
    embedding_cosine: float | None = None
    """Smallest cosine of a window's embedding with PyTorch's; absent: the graph returns no embeddings."""


class Embedding(_Model):
    """The output with one vector for each image, which all graphs have."""

    output: Literal["embedding"]
    dimensions: Annotated[int, Field(gt=0)]
    """Length D of the vectors."""


class TensorRT(_Model):
    """Settings with which onnxruntime's TensorRT provider runs one of the graphs."""

    file: FileName
    """The artifact's file."""
    cache_key: FileName
    """Differs between graphs and between engines' input sizes."""
    provider_options: dict[str, Any]
    """Names and values as text. The reader adds the cache paths."""


class Manifest(_Model):
    """The contents of manifest.json."""

    format_version: Literal[1]
    name: str
    version: str
    """UTC time and the first digits of the checkpoint's SHA-256: `20261122T101112-ab12cd34`."""
    created_at: str
    """ISO 8601, UTC."""
    classes: Annotated[tuple[ClassEntry, ...], Field(min_length=1)]
    ignore_index: int
    inference: Inference
    metrics: dict[str, Any]
    """Copied from the checkpoint: miou [0, 1], miou_over (its number of classes), miou_truth_classes (the mean over the
    classes in the labels), per_class {name: iou or null}, images, split. May be empty."""
    provenance: Provenance
    probe: Probe
    artifacts: Annotated[tuple[Artifact, ...], Field(min_length=1)]
    checkpoint: CheckpointFile | None = None
    tile: Tile | None = None
    tensorrt: TensorRT | None = None
    embedding: Embedding | None = None
    """Absent: the graphs return no embedding."""
    value_range: tuple[FiniteFloat, FiniteFloat] | None = None
    """Values that are black and white in images of floats, 32, 16 or 12 bits; absent: images with 8 bits only, and the
    upper 8 of 16 bits.
    """

    @field_validator("value_range")
    @classmethod
    def _black_is_below_white(cls, value_range: tuple[float, float] | None) -> tuple[float, float] | None:
        if value_range and value_range[0] >= value_range[1]:
            raise ValueError("black must be below white")
        return value_range

    @field_validator("classes")
    @classmethod
    def _ids_are_positions(cls, classes: tuple[ClassEntry, ...]) -> tuple[ClassEntry, ...]:
        if [entry.id for entry in classes] != list(range(len(classes))):
            raise ValueError("ids must be 0, 1, 2, ... in this order")
        return classes

    @field_validator("artifacts")
    @classmethod
    def _one_is_fp32(cls, artifacts: tuple[Artifact, ...]) -> tuple[Artifact, ...]:
        if all(each.precision != "fp32" for each in artifacts):
            raise ValueError("one must have the precision fp32, which runs everywhere")
        return artifacts

    @model_validator(mode="after")
    def _embedding_is_checked(self) -> "Manifest":
        if self.embedding and any(each.min_embedding_cosine is None for each in self.artifacts):
            raise ValueError("with `embedding`, every artifact must have min_embedding_cosine")
        return self

    @property
    def files(self) -> dict[str, Sha256]:
        """SHA-256 of each file of the bundle that has one."""
        entries = [*self.artifacts, self.probe, self.checkpoint, self.tile]
        return {entry.file: entry.sha256 for entry in entries if entry}

    def to_json(self) -> str:
        """The text of manifest.json."""
        return json.dumps(self.model_dump(), indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> "Manifest":
        """Read manifest.json. Raises ManifestError for another `format_version` or an invalid field."""
        try:
            fields = json.loads(text)
        except ValueError as error:
            raise ManifestError(f"manifest.json is not JSON ({error}); export the bundle again") from error
        found = fields.get("format_version") if isinstance(fields, dict) else None
        if type(found) is not int or found != FORMAT_VERSION:
            raise ManifestError(
                f"format_version is {found!r}, and this version of Maskloop reads {FORMAT_VERSION}; "
                "use the version that wrote the bundle, or export it again"
            )
        try:
            # Strict JSON mode accepts a list for a tuple; strict Python mode does not.
            return cls.model_validate_json(json.dumps(fields))
        except ValidationError as error:
            raise ManifestError(_first_problem(error)) from error


def _first_problem(error: ValidationError) -> str:
    """The first invalid field, as `artifacts[0].file`, and what is wrong with it."""
    problem = error.errors()[0]
    field = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in problem["loc"]).removeprefix(".")
    value = problem["input"]
    found = f", found {value!r}" if value is None or isinstance(value, str | int | float) else ""
    return f"{field}: {problem['msg']}{found}; export the bundle again with this version of Maskloop"
