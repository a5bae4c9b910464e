"""What may go wrong, as a tree. Each error knows its HTTP status and a `slug` that clients may rely on.

    MaskloopError                500 internal
    ├── BadInput                 400 bad-input
    │   ├── ImageUnreadable      400 image-unreadable
    │   ├── BodyTooSlow          408 body-too-slow
    │   ├── ImageTooLarge        413 image-too-large
    │   ├── BodyTooLarge         413 body-too-large
    │   ├── ImageUnsupported     415 image-unsupported
    │   ├── EncodingUnsupported  415 encoding-unsupported
    │   ├── NotAcceptable        406 not-acceptable
    │   ├── ClassUnknown         422 class-unknown
    │   ├── MaskInvalid          422 mask-invalid
    │   └── BundleInvalid        422 bundle-invalid
    ├── Unauthorized             401 unauthorized
    │   ├── KeyMissing           401 key-missing
    │   └── KeyInvalid           401 key-invalid
    ├── Forbidden                403 forbidden
    │   ├── ScopeMissing         403 scope-missing
    │   └── ForeignPage          403 foreign-page
    ├── NotFound                 404 not-found
    │   ├── KeyNotFound          404 key-not-found
    │   ├── ImageNotFound        404 image-not-found
    │   ├── ModelNotFound        404 model-not-found
    │   └── RunNotFound          404 run-not-found
    ├── Conflict                 409 conflict
    │   ├── KeyNameTaken         409 key-name-taken
    │   ├── ImageInUse           409 image-in-use
    │   ├── ModelNotServable     409 model-not-servable
    │   ├── NothingToRollBack    409 nothing-to-roll-back
    │   ├── RunActive            409 run-active
    │   ├── RunNotActive         409 run-not-active
    │   └── NotEnoughImages      409 not-enough-images
    ├── RateLimited              429 rate-limited
    ├── FileLost                 500 file-lost
    ├── DeadlinePassed           504 deadline-passed
    ├── NotSupported             501 not-supported
    └── Unavailable              503 unavailable
        ├── Overloaded           503 overloaded
        ├── OutOfMemory          503 out-of-memory
        ├── StorageFailed        503 storage-failed
        ├── NoModel              503 no-model
        ├── ModelLoading         503 model-loading
        ├── QueueUnreachable     503 queue-unreachable
        └── TrainerMissing       503 trainer-missing

The message says what is wrong and what to do about it; the room `api` turns it into problem+json.
"""

from __future__ import annotations

import re
from typing import ClassVar

# The folders of an absolute path, up to the name at its end; the paths of our own calls (/v1/..., /v2/...) are none.
FOLDERS = re.compile(r"(?<![\w:/.])/(?!v[12]/)(?:[^\s/'\"(),;:]+/)+")


def names_only(text: str) -> str:
    """A text without the folders of this machine: what leaves the house may name a file, and not where it lies."""
    return FOLDERS.sub("", text)


class MaskloopError(Exception):
    """Anything the service says no with.

    Args:
        message: What is wrong and what to do about it, for a person.
        retry_after_s: Seconds after which the same call may succeed; None where waiting does not help.
    """

    status: ClassVar[int] = 500
    slug: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"

    def __init__(self, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s


class BadInput(MaskloopError):  # noqa: N818 - a branch of the tree; its leaves read as what happened
    """The client sent something that cannot be used as it is."""

    status, slug, title = 400, "bad-input", "The request cannot be used"


class ImageUnreadable(BadInput):
    """The bytes begin like an image and cannot be decoded."""

    status, slug, title = 400, "image-unreadable", "The image cannot be decoded"


class BodyTooSlow(BadInput):
    """The request body did not arrive in the time that it may take."""

    status, slug, title = 408, "body-too-slow", "The request body came too slowly"


class ImageTooLarge(BadInput):
    """More bytes or more pixels than the limits, or the memory of one inference, allow."""

    status, slug, title = 413, "image-too-large", "The image is too large"


class BodyTooLarge(BadInput):
    """The request body exceeds the limit of its route."""

    status, slug, title = 413, "body-too-large", "The request body is too large"


class ImageUnsupported(BadInput):
    """Not an image, or a kind of image that the service does not take."""

    status, slug, title = 415, "image-unsupported", "The image format is not supported"


class EncodingUnsupported(BadInput):
    """The body is compressed in a way that is not taken."""

    status, slug, title = 415, "encoding-unsupported", "The content encoding is not supported"


class NotAcceptable(BadInput):
    """The Accept header names nothing that the service can answer with."""

    status, slug, title = 406, "not-acceptable", "No acceptable representation"


class ClassUnknown(BadInput):
    """The model that answers has no such class."""

    status, slug, title = 422, "class-unknown", "No such class"


class MaskInvalid(BadInput):
    """A label mask that does not fit its image or the classes."""

    status, slug, title = 422, "mask-invalid", "The mask cannot be used"


class BundleInvalid(BadInput):
    """A model bundle that is broken, of an unknown format, or fails its probe."""

    status, slug, title = 422, "bundle-invalid", "The model bundle cannot be used"


class Unauthorized(MaskloopError):  # noqa: N818 - a branch of the tree; its leaves read as what happened
    """Nobody knows who asks."""

    status, slug, title = 401, "unauthorized", "A key is needed"


class KeyMissing(Unauthorized):
    """The call needs a key, and none was sent."""

    slug = "key-missing"


class KeyInvalid(Unauthorized):
    """The key is unknown, revoked or past its end."""

    slug, title = "key-invalid", "The key is not valid"


class Forbidden(MaskloopError):  # noqa: N818 - a branch of the tree; its leaves read as what happened
    """It is known who asks, and they may not."""

    status, slug, title = 403, "forbidden", "Not allowed"


class ScopeMissing(Forbidden):
    """The key is good, and not for this."""

    slug, title = "scope-missing", "The key is not for this"


class ForeignPage(Forbidden):
    """A page of some other site made a browser ask, where no key protects from it."""

    slug, title = "foreign-page", "Pages of other sites may not ask"


class NotFound(MaskloopError):  # noqa: N818 - a branch of the tree; its leaves read as what happened
    """The thing named does not exist."""

    status, slug, title = 404, "not-found", "Not found"


class ImageNotFound(NotFound):
    """No image with this id in the pool."""

    slug, title = "image-not-found", "No such image"


class KeyNotFound(NotFound):
    """No valid key with this name or id."""

    slug, title = "key-not-found", "No such key"


class ModelNotFound(NotFound):
    """No model with this version."""

    slug, title = "model-not-found", "No such model version"


class RunNotFound(NotFound):
    """No run with this id."""

    slug, title = "run-not-found", "No such run"


class Conflict(MaskloopError):  # noqa: N818 - a branch of the tree; its leaves read as what happened
    """The call is sound and the state of things forbids it now."""

    status, slug, title = 409, "conflict", "Not possible now"


class KeyNameTaken(Conflict):
    """A valid key has this name."""

    slug, title = "key-name-taken", "The name is taken"


class ImageInUse(Conflict):
    """The image belongs to the snapshot of a run that is not over."""

    slug, title = "image-in-use", "The image is in use"


class ModelNotServable(Conflict):
    """The model failed to load, or was rejected by the gate."""

    slug, title = "model-not-servable", "The model cannot serve"


class NothingToRollBack(Conflict):
    """No earlier model to go back to."""

    slug, title = "nothing-to-roll-back", "Nothing to roll back to"


class RunActive(Conflict):
    """One run at a time."""

    slug, title = "run-active", "A run is active"


class RunNotActive(Conflict):
    """The run is over."""

    slug, title = "run-not-active", "The run is over"


class NotEnoughImages(Conflict):
    """Too few labelled or validation images for a run."""

    slug, title = "not-enough-images", "Not enough images"


class RateLimited(MaskloopError):  # noqa: N818 - reads as what happened
    """More requests than this caller may send in this time."""

    status, slug, title = 429, "rate-limited", "Too many requests"


class FileLost(MaskloopError):  # noqa: N818 - reads as what happened
    """The row is there and its file is not: somebody took it out of the data folder."""

    status, slug, title = 500, "file-lost", "The file is lost"


class DeadlinePassed(MaskloopError):  # noqa: N818 - reads as what happened
    """There was no answer in the time that the client gave."""

    status, slug, title = 504, "deadline-passed", "The request's time is over"


class NotSupported(MaskloopError):  # noqa: N818 - reads as what happened
    """A part of a protocol that this service leaves out."""

    status, slug, title = 501, "not-supported", "Not supported"


class Unavailable(MaskloopError):  # noqa: N818 - a branch of the tree; its leaves read as what happened
    """The service cannot do it at this moment."""

    status, slug, title = 503, "unavailable", "Unavailable"


class Overloaded(Unavailable):
    """More requests wait than the service admits."""

    slug, title = "overloaded", "Too many requests wait"


class OutOfMemory(Unavailable):
    """The machine had no memory for an inference."""

    slug, title = "out-of-memory", "Not enough memory"


class StorageFailed(Unavailable):
    """The disk, or the permissions on it, kept a file from being read."""

    slug, title = "storage-failed", "The storage does not answer"


class NoModel(Unavailable):
    """No model is loaded, so nothing can be segmented."""

    slug, title = "no-model", "No model is ready"


class ModelLoading(Unavailable):
    """A model asked for by version is being loaded."""

    slug, title = "model-loading", "A model is being loaded"


class QueueUnreachable(Unavailable):
    """The broker does not answer."""

    slug, title = "queue-unreachable", "The queue cannot be reached"


class TrainerMissing(Unavailable):
    """The trainer is not installed where runs would be done."""

    slug, title = "trainer-missing", "The trainer is not installed"
