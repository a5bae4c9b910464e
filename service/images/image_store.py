"""The pool: images that clients let the service keep, and the labels of some of them."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from sqlalchemy import Exists, Select, exists, func, select, tuple_
from sqlalchemy.orm import Session

from service.errors import BadInput, FileLost, ImageInUse, ImageNotFound
from service.images.label_masks import encode_mask, read_mask
from service.segmentation.decode import EncodedImage, Limits
from service.storage.blob_store import BlobStore, Room
from service.storage.database import Database
from service.storage.tables import Image, Run, RunImage, Split, utc_now

# One label in five judges the models instead of teaching them.
VALIDATION_SHARE = 5
# Images decoded at one time only to see whether they can be: each takes up to 200 MB.
DECODED_AT_A_TIME = 2

Which = Literal["all", "labelled", "unlabelled"]


@dataclass(frozen=True, slots=True)
class Counts:
    """How many images of each kind the pool holds; `labelled` is for training, `val` for judging."""

    labelled: int
    val: int
    unlabelled: int


@dataclass(frozen=True, slots=True)
class Page:
    """Some images, newest first, and the cursor of those after them (None: there are none)."""

    images: list[Image]
    next_cursor: str | None


class ImageStore:
    """Content-addressed images: the id is the sha256 of the encoded bytes, so the same image twice is one image."""

    def __init__(self, database: Database, blobs: BlobStore, limits: Limits) -> None:
        self._database = database
        self._blobs = blobs
        self._limits = limits
        self._decoding = threading.Semaphore(DECODED_AT_A_TIME)

    def add(self, data: bytes, *, decoded: bool = False) -> tuple[Image, bool]:
        """Keep an image; whether it is new comes second.

        Args:
            data: The encoded image.
            decoded: Whether the caller has decoded it already; else it is done here, so that no run meets a file that
                breaks later.

        Raises:
            ImageTooLarge, ImageUnsupported, ImageUnreadable: As `decode` says.
        """
        encoded = EncodedImage(data, self._limits)
        header = encoded.header
        if not decoded:
            with self._decoding:
                encoded.decode()
        with self._database.write() as session:
            # Inside the transaction: `delete` of the same image in another thread comes wholly before or after.
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
        """One image's row.

        Raises:
            ImageNotFound: There is none.
        """
        with self._database.read() as session:
            return _known(session, image_id)

    def page(self, *, which: Which = "all", limit: int = 100, cursor: str | None = None) -> Page:
        """Some images, newest first.

        Args:
            which: All, or those with or without a mask.
            limit: At most so many.
            cursor: Where the last page said to go on.

        Raises:
            BadInput: The cursor is not one of ours.
        """
        query = _filtered(which).order_by(Image.created_at.desc(), Image.id.desc()).limit(limit + 1)
        if cursor is not None:
            query = query.where(tuple_(Image.created_at, Image.id) < _from_cursor(cursor))
        with self._database.read() as session:
            rows = list(session.scalars(query))
        more = len(rows) > limit
        return Page(rows[:limit], _to_cursor(rows[limit - 1]) if more else None)

    def counts(self) -> Counts:
        """How many images of each kind there are."""
        with self._database.read() as session:
            rows = session.execute(select(Image.split, func.count()).group_by(Image.split)).all()
        found = {split: count for split, count in rows}  # noqa: C416 - a Row is no tuple to mypy
        return Counts(found.get("labelled", 0), found.get("val", 0), found.get(None, 0))

    def path(self, image_id: str) -> Path:
        """A local file with the encoded image, to be read only.

        Raises:
            ImageNotFound: There is none.
            FileLost: The file has been taken away.
        """
        return self._path("images", self.get(image_id).id, f"POST the image {image_id} to /v1/images again")

    def mask_path(self, image_id: str) -> Path:
        """A local file with the mask, a grey PNG of class ids, to be read only.

        Raises:
            ImageNotFound: There is no such image, or it has no mask.
            FileLost: The file has been taken away.
        """
        row = self.get(image_id)
        if row.mask_sha256 is None:
            raise ImageNotFound(f"Image {image_id} has no mask: PUT one to /v1/images/{image_id}/mask.")
        return self._path("masks", row.mask_sha256, f"PUT the mask to /v1/images/{image_id}/mask again")

    def put_mask(
        self, image_id: str, data: bytes, *, classes: int, ignore_index: int, split: Split | None = None
    ) -> Image:
        """Label an image, or label it anew.

        Args:
            image_id: The image.
            data: A PNG as `read_mask` takes it.
            classes: The number of classes that the active model tells apart.
            ignore_index: The id of pixels that do not count.
            split: "labelled" to train on it, "val" to judge models by it. None: an image keeps the split it has;
                of the first labels every fifth (the 5th, 10th, ...) judges.

        Raises:
            ImageNotFound: There is no such image.
            MaskInvalid: As `read_mask` says.
        """
        image = self.get(image_id)
        with self._decoding:
            ids = read_mask(data, width=image.width, height=image.height, classes=classes, ignore_index=ignore_index)
        with self._database.write() as session:
            row = _known(session, image_id)
            old = row.mask_sha256
            row.mask_sha256 = self._blobs.put("masks", encode_mask(ids))
            row.split = split or row.split or _next_split(session)
            row.labelled_at = utc_now()
        self._sweep_mask(old)
        return row

    def delete(self, image_id: str) -> None:
        """Forget an image and its mask.

        Raises:
            ImageNotFound: There is no such image.
            ImageInUse: A run that is not over trains on it.
        """
        with self._database.write() as session:
            row = _known(session, image_id)
            if session.scalar(select(_in_active_run(image_id))):
                raise ImageInUse(f"A run that is not over uses image {image_id}: wait for it, or cancel it.")
            session.delete(row)
        # The row goes first, and for good: a file without a row is litter, a row without its file is a loss.
        self._sweep_image(image_id)
        self._sweep_mask(row.mask_sha256)

    def _sweep_image(self, sha256: str) -> None:
        # A transaction that may write keeps `add` out: the same image may have come in again meanwhile.
        with self._database.write() as session:
            if session.get(Image, sha256) is None:
                self._blobs.delete("images", sha256)

    def _sweep_mask(self, sha256: str | None) -> None:
        """Two images may have equal masks, and a run may be reading an old one: only what nobody names goes."""
        with self._database.write() as session:
            if sha256 is None or session.scalar(select(exists().where(Image.mask_sha256 == sha256))):
                return
            if not session.scalar(select(exists().where(Run.status.in_(("queued", "running"))))):
                self._blobs.delete("masks", sha256)

    def _path(self, room: Room, sha256: str, remedy: str) -> Path:
        try:
            return self._blobs.path(room, sha256)
        except FileNotFoundError:
            raise FileLost(f"The file is gone from the data folder: {remedy}, or restore it.") from None


def _known(session: Session, image_id: str) -> Image:
    row = session.get(Image, image_id)
    if row is None:
        raise ImageNotFound(f"There is no image {image_id!r} in the pool: GET /v1/images lists them.")
    return row


def _filtered(which: Which) -> Select[Image]:
    query = select(Image)
    if which == "labelled":
        return query.where(Image.mask_sha256.is_not(None))
    return query.where(Image.mask_sha256.is_(None)) if which == "unlabelled" else query


def _next_split(session: Session) -> Split:
    labels = session.scalar(select(func.count()).where(Image.split.is_not(None))) or 0
    val = session.scalar(select(func.count()).where(Image.split == "val")) or 0
    return "val" if (val + 1) * VALIDATION_SHARE <= labels + 1 else "labelled"


def _in_active_run(image_id: str) -> Exists:
    return exists().where(
        RunImage.image_id == image_id, RunImage.run_id == Run.id, Run.status.in_(("queued", "running"))
    )


def _to_cursor(row: Image) -> str:
    return f"{row.created_at.timestamp():.6f}-{row.id}"


def _from_cursor(cursor: str) -> tuple[datetime, str]:
    seconds, _, image_id = cursor.partition("-")
    try:
        return datetime.fromtimestamp(float(seconds), UTC), image_id
    except (ValueError, OverflowError, OSError):
        raise BadInput("The cursor is not one that this service gave: start without a cursor.") from None
