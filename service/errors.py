"""Errors of the service; `service/api/problems.py` turns them into HTTP responses."""

# ruff: noqa: N818 - the classes are named by what happened

from __future__ import annotations

import re
from typing import ClassVar

# The folders of an absolute path, up to the last name; paths of the API (/v1/..., /v2/...) are kept.
FOLDERS = re.compile(r"(?<![\w:/.])/(?!v[12]/)(?:[^\s/'\"(),;:]+/)+")


def names_only(text: str) -> str:
    """Reduce absolute paths to file names: responses must not disclose folders."""
    return FOLDERS.sub("", text)


class MaskloopError(Exception):
    """Base class of all errors that the service reports to clients.

    `message` states what is wrong and the remedy. After `retry_after_s` the same call may succeed; None if waiting does
    not help.
    """

    status: ClassVar[int] = 500
    """HTTP status."""
    slug: ClassVar[str] = "internal"
    """Stable name for clients."""
    title: ClassVar[str] = "Internal error"

    def __init_subclass__(cls, *, status: int | None = None, slug: str | None = None, title: str | None = None) -> None:
        super().__init_subclass__()
        cls.status, cls.slug, cls.title = status or cls.status, slug or cls.slug, title or cls.title

    def __init__(self, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s


class BadInput(MaskloopError, status=400, slug="bad-input", title="The request cannot be used"):
    """The request is invalid."""


class ImageUnreadable(BadInput, status=400, slug="image-unreadable", title="The image cannot be decoded"):
    """The image is damaged or truncated."""


class BodyTooSlow(BadInput, status=408, slug="body-too-slow", title="The request body arrived too slowly"):
    """The request body did not arrive in time."""


class ImageTooLarge(BadInput, status=413, slug="image-too-large", title="The image is too large"):
    """The image exceeds a limit on bytes, pixels or memory."""


class BodyTooLarge(BadInput, status=413, slug="body-too-large", title="The request body is too large"):
    """The request body exceeds the limit of its route."""


class ImageUnsupported(BadInput, status=415, slug="image-unsupported", title="The image format is not supported"):
    """Not an image, or of an unsupported format."""


class EncodingUnsupported(
    BadInput, status=415, slug="encoding-unsupported", title="The content encoding is not supported"
):
    """The Content-Encoding is not supported."""


class NotAcceptable(BadInput, status=406, slug="not-acceptable", title="No acceptable representation"):
    """The Accept header matches no media type of the route."""


class ClassUnknown(BadInput, status=422, slug="class-unknown", title="No such class"):
    """The model has no such class."""


class MaskInvalid(BadInput, status=422, slug="mask-invalid", title="The mask cannot be used"):
    """The label mask does not match its image or the classes."""


class ClassesInvalid(BadInput, status=422, slug="classes-invalid", title="The class list cannot be used"):
    """The new class list has invalid names or colours, or leaves open what became of a class."""


class ReasonMissing(BadInput, status=422, slug="reason-missing", title="A reason is needed"):
    """The call overrides a decision of the service and gives no reason."""


class BundleInvalid(BadInput, status=422, slug="bundle-invalid", title="The model bundle cannot be used"):
    """The model bundle is broken, of an unknown format, or fails its probe."""


class ConversionImpossible(BadInput, status=422, slug="conversion-impossible", title="The labels cannot be converted"):
    """An archive is of no known format, or a format cannot hold the labels."""


class Unauthorized(MaskloopError, status=401, slug="unauthorized", title="A key is needed"):
    """The caller is not authenticated."""


class KeyMissing(Unauthorized, slug="key-missing"):
    """The call needs a key and none was sent."""


class KeyInvalid(Unauthorized, slug="key-invalid", title="The key is not valid"):
    """The key is unknown, revoked or expired."""


class Forbidden(MaskloopError, status=403, slug="forbidden", title="Not allowed"):
    """The caller may not do this."""


class ScopeMissing(Forbidden, slug="scope-missing", title="The key lacks a scope"):
    """The key lacks a scope."""


class ForeignPage(Forbidden, slug="foreign-page", title="Pages of other sites need a key"):
    """A web page of another site sent the request, without a key."""


class NotFound(MaskloopError, status=404, slug="not-found", title="Not found"):
    """The named thing does not exist."""


class ImageNotFound(NotFound, slug="image-not-found", title="No such image"):
    """The pool has no image with this id."""


class ClassesNotFound(NotFound, slug="classes-not-found", title="No such class list"):
    """There is no class list with this version."""


class KeyNotFound(NotFound, slug="key-not-found", title="No such key"):
    """There is no valid key with this name or id."""


class ModelNotFound(NotFound, slug="model-not-found", title="No such model version"):
    """There is no model with this version."""


class ReleaseNotFound(NotFound, slug="release-not-found", title="No such release"):
    """There is no release with this id."""


class RunNotFound(NotFound, slug="run-not-found", title="No such run"):
    """There is no run with this id."""


class RunFileMissing(NotFound, slug="run-file-missing", title="The run has no such file"):
    """The run has not written the file."""


class RunFilesDeleted(MaskloopError, status=410, slug="run-files-deleted", title="The run's files were deleted"):
    """Log, history, checkpoint and report of the run were deleted."""


class Conflict(MaskloopError, status=409, slug="conflict", title="Not possible now"):
    """The request is valid, but the current state does not allow it."""


class KeyNameTaken(Conflict, slug="key-name-taken", title="The name is taken"):
    """A valid key has this name."""


class ModelNotServable(Conflict, slug="model-not-servable", title="The model cannot serve"):
    """The model failed to load, or was deleted."""


class NothingToRollBack(Conflict, slug="nothing-to-roll-back", title="Nothing to roll back to"):
    """There is no earlier model to return to."""


class ReleaseDecided(Conflict, slug="release-decided", title="The release is decided"):
    """The candidate serves already, or waits for no decision."""


class NotDeletable(Conflict, slug="not-deletable", title="It cannot be deleted"):
    """The model or run is in use."""


class ClassesChanged(MaskloopError, status=412, slug="classes-changed", title="The class list has changed meanwhile"):
    """The new class list was derived from a version that is no longer the present one."""


class LabelExists(Conflict, slug="label-exists", title="The image has a drawn label"):
    """A prediction would replace a label that a person drew."""


class LabelNotDrawn(Conflict, slug="label-not-drawn", title="A label for validation must be drawn"):
    """A prediction would become a label in `val`, by which models are judged."""


class RunActive(Conflict, slug="run-active", title="A run is active"):
    """Another run is active."""


class RunNotActive(Conflict, slug="run-not-active", title="The run is over"):
    """The run has ended."""


class StartUnusable(Conflict, slug="start-unusable", title="Training cannot start from the model"):
    """The model has no checkpoint, has failed, or knows other classes than the active one."""


class NotEnoughImages(Conflict, slug="not-enough-images", title="Not enough images"):
    """Too few labelled or validation images for a run."""


class ImagesDeleted(Conflict, slug="images-deleted", title="Images of the run were deleted"):
    """A run cannot be repeated exactly."""


class RunNotRepeatable(Conflict, slug="run-not-repeatable", title="The run cannot be repeated"):
    """The run has no snapshot, or no recipe."""


class LabelsUnusable(Conflict, slug="labels-unusable", title="The labels cannot be used"):
    """The labels of a run show fewer classes than it needs."""


class NotAnalysed(Conflict, slug="not-analysed", title="Not analysed yet"):
    """The active model has not analysed the image, or has no embeddings."""


class NothingLabelled(Conflict, slug="nothing-labelled", title="There are no labels"):
    """The pool has no labels to export."""


class NothingCompared(Conflict, slug="nothing-compared", title="Nothing to compare"):
    """No pixel of the validation images has a label, so a candidate cannot be judged."""


class RateLimited(MaskloopError, status=429, slug="rate-limited", title="Too many requests"):
    """The caller exceeded its rate limit."""


class FileLost(MaskloopError, status=500, slug="file-lost", title="The file is lost"):
    """The file of a database record is missing."""


class ConversionFailed(MaskloopError, status=500, slug="conversion-failed", title="The conversion failed"):
    """The program that converts labels was killed, or has a fault."""


class DeadlinePassed(MaskloopError, status=504, slug="deadline-passed", title="The deadline passed"):
    """The client's deadline passed before the answer was ready."""


class StorageUnwritable(MaskloopError, status=507, slug="storage-unwritable", title="The storage cannot be written"):
    """The disk is full, or the data folder is read-only."""


class DatabaseUnwritable(StorageUnwritable):
    """The database of another server is full or read-only; the data folder may be fine."""


class PoolFull(MaskloopError, status=507, slug="pool-full", title="The pool is full"):
    """The images in the pool have reached the limit of their total size."""


class NotSupported(MaskloopError, status=501, slug="not-supported", title="Not supported"):
    """The service does not implement this part of a protocol."""


class Unavailable(MaskloopError, status=503, slug="unavailable", title="Unavailable"):
    """The service cannot do this at present."""


class Overloaded(Unavailable, slug="overloaded", title="Too many requests"):
    """The service is full, or the queueing time too long."""


class OutOfMemory(Unavailable, slug="out-of-memory", title="Not enough memory"):
    """The machine lacks the memory for an inference."""


class StorageFailed(Unavailable, slug="storage-failed", title="The storage does not answer"):
    """A file cannot be read (the disk, or the permissions on it), or the database cannot be reached."""


class NoModel(Unavailable, slug="no-model", title="No model is ready"):
    """No model is loaded."""


class ModelLoading(Unavailable, slug="model-loading", title="A model is being loaded"):
    """The requested model version is being loaded."""


class QueueUnreachable(Unavailable, slug="queue-unreachable", title="The queue cannot be reached"):
    """The broker does not answer."""


class TrainerMissing(Unavailable, slug="trainer-missing", title="The trainer is not installed"):
    """No worker has the trainer."""


UPLOAD_ERRORS = (BadInput, BodyTooSlow, EncodingUnsupported, Overloaded)
IMAGE_ERRORS = (ImageUnreadable, ImageTooLarge, ImageUnsupported)
ADMISSION_ERRORS = (Overloaded, DeadlinePassed, OutOfMemory, Unavailable)
MODEL_ERRORS = (ModelNotFound, ModelNotServable, ModelLoading, NoModel, Unavailable)
