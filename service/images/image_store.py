"""The image pool: images that clients contributed, and labels for some of them."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from sqlalchemy import Select, exists, func, select, tuple_
from sqlalchemy.orm import Session

from service.errors import BadInput, FileLost, ImageInUse, ImageNotFound
from service.images.label_masks import check_not_binary, encode_mask, read_mask
from service.segmentation.decode import EncodedImage, Limits
from service.segmentation.formats.rgb import ValueRange
from service.storage.blob_store import BlobStore, Collection
from service.storage.database import Database
from service.storage.tables import ACTIVE, Image, Run, RunImage, Split, utc_now

LABELS_PER_VAL = 5
# For validation; each takes up to 200 MB.
MAX_CONCURRENT_DECODES = 2

LabelFilter = Literal["all", "labelled", "unlabelled"]


@dataclass(frozen=True, slots=True)
class Counts:
    """Number of images: labelled for training, labelled for validation, unlabelled."""

    labelled: int
    val: int
    unlabelled: int


@dataclass(frozen=True, slots=True)
class Page:
    """A page of images, newest first, and the cursor of the next page (None: the last)."""

    images: list[Image]
    next_cursor: str | None


class ImageStore:
    """Content-addressed images: the id is the SHA-256 of the encoded bytes, so duplicates are one image."""

    def __init__(self, database: Database, blobs: BlobStore, limits: Limits) -> None:
        self._database = database
        self._blobs = blobs
        self._limits = limits
        self._decoding = threading.Semaphore(MAX_CONCURRENT_DECODES)

    def add(self, data: bytes, *, value_range: ValueRange | None = None, decoded: bool = False) -> tuple[Image, bool]:
        """Add an image; return its row, and whether it is new. Raises as `decode`.

        It is decoded, unless the caller has `decoded` it, so that no run fails on it later. `value_range` is that of
        the model.
        """
        encoded = EncodedImage(data, self._limits, value_range)
        with self._decoding:
            header = encoded.header if decoded else encoded.decode().header
        with self._database.write() as session:
            # Inside the transaction, against a concurrent `delete` of this image.
            sha256 = self._blobs.put("images", data)
            known = session.get(Image, sha256)
            if known is not None:
                return known, False
            row = Image(
                id=sha256, media_type=header.media_type, width=header.width, height=header.height, bytes=len(data)
            )
            session.add(row)
        return row, True

    def get(self, image_id: str) -> Image:
        """Get the row of an image. Raises ImageNotFound."""
        with self._database.read() as session:
            return _existing(session, image_id)

    def page(self, *, which: LabelFilter = "all", limit: int = 100, cursor: str | None = None) -> Page:
        """Get a page of images; `cursor` is from the previous page. Raises BadInput if it is invalid."""
        query = _filtered(which).order_by(Image.created_at.desc(), Image.id.desc()).limit(limit + 1)
        if cursor is not None:
            query = query.where(tuple_(Image.created_at, Image.id) < _from_cursor(cursor))
        with self._database.read() as session:
            rows = list(session.scalars(query))
        more = len(rows) > limit
        return Page(rows[:limit], _to_cursor(rows[limit - 1]) if more else None)

    def counts(self) -> Counts:
        """Count the images by split."""
        with self._database.read() as session:
            found = dict(session.execute(select(Image.split, func.count()).group_by(Image.split)).all())
        return Counts(found.get("labelled", 0), found.get("val", 0), found.get(None, 0))

    def path(self, image_id: str) -> Path:
        """Return the file with the encoded image, for reading. Raises ImageNotFound, FileLost."""
        return self._path("images", self.get(image_id).id, f"POST the image {image_id} to /v1/images again")

    def mask_path(self, image_id: str) -> Path:
        """Return the file with the mask, a grey PNG of class ids. Raises ImageNotFound if there is none, FileLost."""
        row = self.get(image_id)
        if row.mask_sha256 is None:
            raise ImageNotFound(f"Image {image_id} has no mask: PUT one to /v1/images/{image_id}/mask.")
        return self._path("masks", row.mask_sha256, f"PUT the mask to /v1/images/{image_id}/mask again")

    def put_mask(
        self,
        image_id: str,
        data: bytes,
        *,
        classes: int,
        ignore_index: int,
        split: Split | None = None,
        partial: bool = False,
    ) -> Image:
        """Set or replace the label of an image, a PNG for `read_mask`. Raises ImageNotFound, MaskInvalid.

        With `partial`, it may show class 0 alone beside pixels without a label, as 0/255 masks do. Without `split`, a
        labelled image keeps its split; of new labels, every fifth goes to `val`.
        """
        image = self.get(image_id)
        with self._decoding:
            ids = read_mask(data, width=image.width, height=image.height, classes=classes, ignore_index=ignore_index)
        if not partial:
            check_not_binary(ids, ignore_index)
        with self._database.write() as session:
            row = _existing(session, image_id)
            old = row.mask_sha256
            row.mask_sha256 = self._blobs.put("masks", encode_mask(ids))
            row.split = split or row.split or _next_split(session)
            row.labelled_at = utc_now()
        self._delete_mask_file(old)
        return row

    def delete(self, image_id: str) -> None:
        """Delete an image and its mask. Raises ImageNotFound, or ImageInUse while an active run uses it."""
        with self._database.write() as session:
            row = _existing(session, image_id)
            in_run = (RunImage.image_id == image_id, RunImage.run_id == Run.id, Run.status.in_(ACTIVE))
            if session.scalar(select(exists().where(*in_run))):
                raise ImageInUse(f"An active run uses image {image_id}: wait until it ends, or cancel it.")
            session.delete(row)
        # Files last: one without a row only takes space.
        self._delete_image_file(image_id)
        self._delete_mask_file(row.mask_sha256)

    def _delete_image_file(self, sha256: str) -> None:
        # A write transaction excludes `add`: the same image may have been added again.
        with self._database.write() as session:
            if session.get(Image, sha256) is None:
                self._blobs.delete("images", sha256)

    def _delete_mask_file(self, sha256: str | None) -> None:
        """Delete a mask file that no image refers to, unless an active run may read it."""
        with self._database.write() as session:
            if sha256 is None or session.scalar(select(exists().where(Image.mask_sha256 == sha256))):
                return
            if not session.scalar(select(exists().where(Run.status.in_(ACTIVE)))):
                self._blobs.delete("masks", sha256)

    def _path(self, collection: Collection, sha256: str, remedy: str) -> Path:
        try:
            return self._blobs.path(collection, sha256)
        except FileNotFoundError:
            raise FileLost(f"The file is missing in the data folder: {remedy}, or restore it.") from None


def _existing(session: Session, image_id: str) -> Image:
    row = session.get(Image, image_id)
    if row is None:
        raise ImageNotFound(f"There is no image {image_id!r} in the pool: GET /v1/images lists them.")
    return row


def _filtered(which: LabelFilter) -> Select[Image]:
    query = select(Image)
    if which == "labelled":
        return query.where(Image.mask_sha256.is_not(None))
    return query.where(Image.mask_sha256.is_(None)) if which == "unlabelled" else query


def _next_split(session: Session) -> Split:
    labels = session.scalar(select(func.count()).where(Image.split.is_not(None))) or 0
    val = session.scalar(select(func.count()).where(Image.split == "val")) or 0
    return "val" if (val + 1) * LABELS_PER_VAL <= labels + 1 else "labelled"


def _to_cursor(row: Image) -> str:
    return f"{row.created_at.timestamp():.6f}-{row.id}"


def _from_cursor(cursor: str) -> tuple[datetime, str]:
    seconds, _, image_id = cursor.partition("-")
    try:
        return datetime.fromtimestamp(float(seconds), UTC), image_id
    except (ValueError, OverflowError, OSError):
        raise BadInput("The cursor is invalid: start without a cursor.") from None
