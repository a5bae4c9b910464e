"""The answers of the service, as far as the client reads them.

Unknown fields are ignored, so that a client reads newer services. A test compares each model with the OpenAPI document,
which describes the fields.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict


class Answer(BaseModel):
    """A JSON object of the service, immutable."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class Problem(Answer):
    """RFC 9457: `detail` states what is wrong and the remedy."""

    type: str
    title: str
    status: int
    detail: str


class ReadyState(Answer):
    """The model that serves."""

    status: str = "ready"
    model: str
    provider: str
    error: str | None = None
    storage: str | None = None


class Rle(Answer):
    """COCO's compressed run-length encoding; `size` is height, width."""

    size: tuple[int, int]
    counts: str


class ClassRegion(Answer):
    """One class that occurs in an image; fractions and confidences are 0..1, colours RGB."""

    id: int
    name: str
    color: tuple[int, int, int]
    pixels: int
    fraction: float
    confidence: float
    rle: Rle | None = None
    polygons: Sequence[Sequence[Sequence[int]]] | None = None


class Segmentation(Answer):
    """The mask of an image. Coordinates are pixels of the upright image; PNGs are in base64."""

    model: str
    width: int
    height: int
    orientation: int
    ignored: str | None = None
    confidence: float
    classes: Sequence[ClassRegion]
    mask_png: str | None = None
    confidence_png: str | None = None


class SegmentedLine(Answer):
    """What became of one image of a batch: `result` or `problem`."""

    index: int
    filename: str
    status: int
    result: Segmentation | None = None
    problem: Problem | None = None


class PoolImage(Answer):
    """An image of the pool; `id` is the SHA-256 of its bytes."""

    id: str
    media_type: str
    width: int
    height: int
    bytes: int
    created_at: datetime
    split: str | None
    labelled_at: datetime | None
    group: str | None
    duplicate_of: str | None


class AddedLine(Answer):
    """What became of one image of an upload: `image` or `problem`. 200: the pool had it, 201: it is new."""

    index: int
    filename: str
    status: int
    image: PoolImage | None = None
    problem: Problem | None = None


class PoolPage(Answer):
    """A page of the pool, with the numbers of labels in all of it."""

    images: Sequence[PoolImage]
    next_cursor: str | None
    labelled: int
    val: int
    unlabelled: int


class DeletedImage(Answer):
    """A deleted image, and the models that were trained with it."""

    id: str
    models: Sequence[str]


class Run(Answer):
    """A retraining run."""

    id: str
    status: str
    reason: str
    repeats: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    attempts: int
    cancel_requested: bool
    phase: str | None
    step: int | None
    steps: int | None
    loss: float | None
    error: str | None
    environment: Mapping[str, Any] | None
    base_version: str | None
    from_encoder: bool
    candidate_version: str | None
    miou_before: float | None
    miou_after: float | None
    report: Mapping[str, Any] | None
    bytes: int | None
    deleted_at: datetime | None
    deletion_reason: str | None
    deleted_by: str | None

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.status not in ("queued", "running")


class RunPage(Answer):
    """A page of runs, newest first."""

    runs: Sequence[Run]
    next_cursor: str | None


class NextRun(Answer):
    """What starts the next run, and what prevents it; `message` says all of it."""

    due: str | None
    new_images: int
    images_needed: int
    new_labels: int
    labels_needed: int
    scheduled_at: datetime | None
    on_drift: bool
    paused_until: datetime | None
    pause_reason: str | None
    obstacle: str | None
    message: str


class History(Answer):
    """Losses and evaluations of a run, by step."""

    progress: Sequence[Mapping[str, Any]]
    evaluations: Sequence[Mapping[str, Any]]


class Model(Answer):
    """A model version."""

    version: str
    name: str
    state: str
    error: str | None
    parent: str | None
    run_id: str | None
    miou: float | None
    created_at: datetime
    serving: bool = False
    desired: bool = False
    bytes: int | None
    deleted_at: datetime | None
    deletion_reason: str | None


class Models(Answer):
    """All versions, newest first."""

    models: Sequence[Model]
    serving: str | None
    desired: str | None
    error: str | None


class ModelDetail(Model):
    """A version with the contents of its manifest. A class id is the position in `classes`."""

    classes: Sequence[Mapping[str, Any]]
    ignore_index: int
    value_range: Sequence[float] | None
    embedding: int | None
    metrics: Mapping[str, Any]
    provenance: Mapping[str, Any]


class Activation(Answer):
    """The record of an activation."""

    version: str
    at: datetime
    reason: str
    key_name: str | None


class Traffic(Answer):
    """Inferences of a model in traffic."""

    requests: int
    errors: int
    p95_s: float | None


class Disagreement(Answer):
    """How far the masks of a shadow's candidate and of the active model differ."""

    images: int
    dropped: int
    errors: int
    share: float | None
    by_class: Mapping[str, float]


class Release(Answer):
    """A candidate and what became of it."""

    id: int
    run_id: str
    version: str
    state: str
    reason: str
    decided_by: str | None
    verdict: Mapping[str, Any]
    base_version: str | None
    judged_at: datetime
    changed_at: datetime
    watched: bool


class ReleaseDetail(Release):
    """A release with the traffic of its models."""

    disagreement: Disagreement | None
    traffic: Traffic
    traffic_before: Traffic


class Releases(Answer):
    """Releases, newest first."""

    releases: Sequence[Release]


class ListedClass(Answer):
    """A class of the service's list; `id` is its value in labels, and labels and pixels are those that show it."""

    id: int
    identity: int
    name: str
    color: Sequence[int]
    labels: int
    pixels: int


class SetAside(Answer):
    """Labels of a class that the list has no more: their pixels are ignored."""

    version: int
    identity: int | None
    name: str
    labels: int
    pixels: int


class ServiceClasses(Answer):
    """A version of the service's class list."""

    version: int
    created_at: datetime
    key_name: str | None
    model: str | None
    ignore_index: int
    classes: Sequence[ListedClass]
    changes: Mapping[str, Any]
    set_aside: Sequence[SetAside]
    uncounted_labels: int
