"""Errors of the service. Each class states its HTTP status, a stable `slug` for clients, and a title.

The message of an error says what is wrong and what to do about it. `service/api/problems.py` turns it into
`application/problem+json`. The groups at the end name the errors of one kind for the OpenAPI document.
"""

from __future__ import annotations

import re
from typing import ClassVar

# The folders of an absolute path, up to the last name; paths of the API (/v1/..., /v2/...) are kept.
FOLDERS = re.compile(r"(?<![\w:/.])/(?!v[12]/)(?:[^\s/'\"(),;:]+/)+")


def names_only(text: str) -> str:
    """Reduce absolute paths in a text to file names: responses may name a file, but not where it lies."""
    return FOLDERS.sub("", text)


class MaskloopError(Exception):
    """Base class of all errors that the service reports to clients.

    Args:
        message: What is wrong and what to do about it.
        retry_after_s: Seconds after which the same call may succeed; None if waiting does not help.
    """

    status: ClassVar[int] = 500
    slug: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"

    def __init__(self, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s


class BadInput(MaskloopError):  # noqa: N818 - a base class; its subclasses read as what happened
    """The request cannot be used as it is."""

    status, slug, title = 400, "bad-input", "The request cannot be used"


class ImageUnreadable(BadInput):
    """The image is damaged or truncated."""

    status, slug, title = 400, "image-unreadable", "The image cannot be decoded"


class BodyTooSlow(BadInput):
    """The request body did not arrive in time."""

    status, slug, title = 408, "body-too-slow", "The request body came too slowly"


class ImageTooLarge(BadInput):
    """The image exceeds a limit on bytes, pixels or memory."""

    status, slug, title = 413, "image-too-large", "The image is too large"


class BodyTooLarge(BadInput):
    """The request body exceeds the limit of its route."""

    status, slug, title = 413, "body-too-large", "The request body is too large"


class ImageUnsupported(BadInput):
    """Not an image, or of a format that the service does not decode."""

    status, slug, title = 415, "image-unsupported", "The image format is not supported"


class EncodingUnsupported(BadInput):
    """The Content-Encoding is not supported."""

    status, slug, title = 415, "encoding-unsupported", "The content encoding is not supported"


class NotAcceptable(BadInput):
    """The Accept header matches no media type that the service can produce."""

    status, slug, title = 406, "not-acceptable", "No acceptable representation"


class ClassUnknown(BadInput):
    """The model has no such class."""

    status, slug, title = 422, "class-unknown", "No such class"


class MaskInvalid(BadInput):
    """The label mask does not match its image or the classes."""

    status, slug, title = 422, "mask-invalid", "The mask cannot be used"


class BundleInvalid(BadInput):
    """The model bundle is broken, of an unknown format, or fails its probe."""

    status, slug, title = 422, "bundle-invalid", "The model bundle cannot be used"


class Unauthorized(MaskloopError):  # noqa: N818 - a base class; its subclasses read as what happened
    """The caller is not authenticated."""

    status, slug, title = 401, "unauthorized", "A key is needed"


class KeyMissing(Unauthorized):
    """The call needs a key and none was sent."""

    slug = "key-missing"


class KeyInvalid(Unauthorized):
    """The key is unknown, revoked or expired."""

    slug, title = "key-invalid", "The key is not valid"


class Forbidden(MaskloopError):  # noqa: N818 - a base class; its subclasses read as what happened
    """The caller is authenticated but not allowed to do this."""

    status, slug, title = 403, "forbidden", "Not allowed"


class ScopeMissing(Forbidden):
    """The key lacks a scope."""

    slug, title = "scope-missing", "The key is not for this"


class ForeignPage(Forbidden):
    """A web page of another site sent the request from a browser, without a key."""

    slug, title = "foreign-page", "Pages of other sites may not ask"


class NotFound(MaskloopError):  # noqa: N818 - a base class; its subclasses read as what happened
    """The named thing does not exist."""

    status, slug, title = 404, "not-found", "Not found"


class ImageNotFound(NotFound):
    """The pool has no image with this id."""

    slug, title = "image-not-found", "No such image"


class KeyNotFound(NotFound):
    """There is no valid key with this name or id."""

    slug, title = "key-not-found", "No such key"


class ModelNotFound(NotFound):
    """There is no model with this version."""

    slug, title = "model-not-found", "No such model version"


class RunNotFound(NotFound):
    """There is no run with this id."""

    slug, title = "run-not-found", "No such run"


class Conflict(MaskloopError):  # noqa: N818 - a base class; its subclasses read as what happened
    """The request is valid, but the present state does not allow it."""

    status, slug, title = 409, "conflict", "Not possible now"


class KeyNameTaken(Conflict):
    """A valid key has this name."""

    slug, title = "key-name-taken", "The name is taken"


class ImageInUse(Conflict):
    """The image is part of the snapshot of an active run."""

    slug, title = "image-in-use", "The image is in use"


class ModelNotServable(Conflict):
    """The model failed to load, or the gate rejected it."""

    slug, title = "model-not-servable", "The model cannot serve"


class NothingToRollBack(Conflict):
    """There is no earlier model to return to."""

    slug, title = "nothing-to-roll-back", "Nothing to roll back to"


class RunActive(Conflict):
    """Another run is active."""

    slug, title = "run-active", "A run is active"


class RunNotActive(Conflict):
    """The run has ended."""

    slug, title = "run-not-active", "The run is over"


class NotEnoughImages(Conflict):
    """Too few labelled or validation images for a run."""

    slug, title = "not-enough-images", "Not enough images"


class RateLimited(MaskloopError):  # noqa: N818 - reads as what happened
    """The caller exceeded its rate limit."""

    status, slug, title = 429, "rate-limited", "Too many requests"


class FileLost(MaskloopError):  # noqa: N818 - reads as what happened
    """The database has the record, but its file is missing in the data folder."""

    status, slug, title = 500, "file-lost", "The file is lost"


class DeadlinePassed(MaskloopError):  # noqa: N818 - reads as what happened
    """The client's deadline passed before the answer was ready."""

    status, slug, title = 504, "deadline-passed", "The request's time is over"


class NotSupported(MaskloopError):  # noqa: N818 - reads as what happened
    """The service does not implement this part of a protocol."""

    status, slug, title = 501, "not-supported", "Not supported"


class Unavailable(MaskloopError):  # noqa: N818 - a base class; its subclasses read as what happened
    """The service cannot do this at present."""

    status, slug, title = 503, "unavailable", "Unavailable"


class Overloaded(Unavailable):
    """The service is full, or the queueing time would be too long."""

    slug, title = "overloaded", "Too many requests wait"


class OutOfMemory(Unavailable):
    """The machine lacks the memory for an inference."""

    slug, title = "out-of-memory", "Not enough memory"


class StorageFailed(Unavailable):
    """A file cannot be read: the disk, or the permissions on it."""

    slug, title = "storage-failed", "The storage does not answer"


class NoModel(Unavailable):
    """No model is loaded."""

    slug, title = "no-model", "No model is ready"


class ModelLoading(Unavailable):
    """The requested model version is being loaded."""

    slug, title = "model-loading", "A model is being loaded"


class QueueUnreachable(Unavailable):
    """The broker does not answer."""

    slug, title = "queue-unreachable", "The queue cannot be reached"


class TrainerMissing(Unavailable):
    """The trainer is not installed where runs are performed."""

    slug, title = "trainer-missing", "The trainer is not installed"


UPLOAD_ERRORS = (BadInput, BodyTooSlow, Overloaded)
"""Errors of receiving a body."""
IMAGE_ERRORS = (ImageUnreadable, ImageTooLarge, ImageUnsupported)
"""Errors of decoding an image."""
ADMISSION_ERRORS = (Overloaded, DeadlinePassed, OutOfMemory, Unavailable)
"""Errors of admission control and inference."""
MODEL_ERRORS = (ModelNotFound, ModelNotServable, ModelLoading, NoModel, Unavailable)
"""Errors of choosing the model that answers."""
