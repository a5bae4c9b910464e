"""The image pool: images that clients contributed, and labels for some of them.

Files are written before the row that refers to them, and deleted after it; each is locked for both. So a row has its
files, whatever happens at the same time or in between.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sqlalchemy import Select, delete, exists, select, text
from sqlalchemy.orm import Session

from service.classes.class_list import ClassHistory, ClassList, Ids
from service.classes.label_counts import add_label, class_pixels, remove_label
from service.errors import FileLost, ImageNotFound, PoolFull
from service.images.accepted_labels import check_acceptable
from service.images.duplicate_clusters import cluster_split, pass_on_duplicates
from service.images.label_masks import decode_mask, encode_mask, read_label, translate_mask
from service.images.new_images import NewImage, find_new, insert_images
from service.images.pool_counters import (
    Counts,
    count_deleted,
    count_labelled,
    locked_pool,
    next_split,
    read_counts,
)
from service.segmentation.decode import EncodedImage, Limits
from service.segmentation.formats.rgb import ValueRange
from service.storage.analysis_tables import ImageAnalysis
from service.storage.blob_store import BlobStore, Collection, sha256_of
from service.storage.cursors import parse_cursor
from service.storage.database import Database
from service.storage.deletion_columns import DeletionReason
from service.storage.tables import UNCOUNTED, DeletedImage, Image, Run, RunLabel, Split, utc_now
from service.storage.vector_file import VectorFolder

# For validation; each takes up to 200 MB.
MAX_CONCURRENT_DECODES = 2

LabelFilter = Literal["all", "labelled", "unlabelled"]


@dataclass(frozen=True, slots=True)
class Page:
    """A page of images, newest first, and the cursor of the next page (None: the last)."""

    images: list[Image]
    next_cursor: str | None


class ImageStore:
    """Content-addressed images: the id is the SHA-256 of the encoded bytes, so duplicates are one image."""

    def __init__(
        self, database: Database, blobs: BlobStore, limits: Limits, vectors: VectorFolder, max_bytes: int = 0
    ) -> None:
        self._database = database
        self._blobs = blobs
        self.vectors = vectors
        self._max_bytes = max_bytes
        self._limits = limits
        self._decoding = threading.Semaphore(MAX_CONCURRENT_DECODES)

    def add(self, data: bytes, *, value_range: ValueRange | None = None, decoded: bool = False) -> tuple[Image, bool]:
        """Add an image; return its row, and whether it is new. Raises as `receive`."""
        return self.add_all([self.receive(data, value_range=value_range, decoded=decoded)])[0]

    def receive(self, data: bytes, *, value_range: ValueRange | None = None, decoded: bool = False) -> NewImage:
        """Check an image and store its bytes, for `add_all`. Raises as `decode`, and PoolFull.

        Its pixels are checked, unless the caller has `decoded` it, so that no run fails on it later. `value_range` is
        that of the model.
        """
        encoded = EncodedImage(data, self._limits, value_range)
        with self._decoding:
            header = encoded.header if decoded else encoded.check_pixels()
        image = NewImage(data, sha256_of(data), header)
        self._check_space(image)
        # Before the transaction, since flushing a file takes milliseconds.
        self._blobs.put("images", image.sha256, data)
        return image

    def add_all(self, images: Sequence[NewImage]) -> list[tuple[Image, bool]]:
        """Add images in one transaction; return for each, in their order, its row, and whether it is new."""
        with self._database.write() as session:
            # In one order everywhere, so that two transactions never wait for each other.
            for sha256 in sorted({image.sha256 for image in images}):
                self._database.lock(session, sha256)
            new = find_new(session, images)
            for image in new:
                # Does nothing, unless the image has just been deleted.
                self._blobs.put("images", image.sha256, image.data)
            rows = insert_images(session, new)
            known = {i.sha256: _existing(session, i.sha256) for i in images if i.sha256 not in rows}
        for image in new:
            self._blobs.confirm("images", image.sha256)
        first = {image.sha256: position for position, image in reversed(list(enumerate(images)))}
        return [
            ((rows | known)[image.sha256], image.sha256 in rows and first[image.sha256] == position)
            for position, image in enumerate(images)
        ]

    def get(self, image_id: str) -> Image:
        """Get the row of an image. Raises ImageNotFound."""
        with self._database.read() as session:
            return _existing(session, image_id)

    def page(self, *, which: LabelFilter = "all", limit: int = 100, cursor: str | None = None) -> Page:
        """Get a page of images; `cursor` is from the previous page. Raises BadInput if it is invalid."""
        query = _filtered(which).order_by(Image.sequence.desc()).limit(limit + 1)
        if cursor is not None:
            query = query.where(Image.sequence < parse_cursor(cursor))
        with self._database.read() as session:
            rows = list(session.scalars(query))
        more = len(rows) > limit
        return Page(rows[:limit], str(rows[limit - 1].sequence) if more else None)

    def counts(self) -> Counts:
        """Return the number of images by split, and their size."""
        with self._database.read() as session:
            return read_counts(session)

    def count_labels(self, ignore_index: int, limit: int) -> None:
        """Count the classes of labels of a former version of the service, at most `limit`; they have the first list."""
        with self._database.read() as session:
            query = select(Image).where(text(UNCOUNTED)).order_by(Image.sequence).limit(limit)
            some = session.scalars(query).all()
        for row in some:
            self._count_label(row.id, row.mask_sha256, ignore_index)

    def _count_label(self, image_id: str, sha256: str | None, ignore_index: int) -> None:
        try:
            pixels = class_pixels(decode_mask(self._blobs.read("masks", str(sha256))), ignore_index)
        except FileNotFoundError:
            # Reading the label says so.
            pixels = {}
        with self._database.write() as session:
            locked_pool(session)
            image = session.get(Image, image_id)
            if image is not None and image.class_pixels is None and image.mask_sha256 == sha256:
                image.class_pixels = pixels
                add_label(session, image)

    def read(self, image_id: str) -> bytes:
        """Return the encoded image. Raises ImageNotFound, FileLost."""
        return self._read("images", self.get(image_id).id, f"POST the image {image_id} to /v1/images again")

    def read_mask(self, image_id: str, history: ClassHistory | None = None) -> bytes:
        """Return the mask, a grey PNG of class ids: of the present list, or as stored without a `history`.

        Raises ImageNotFound if there is none, FileLost.
        """
        row = self.get(image_id)
        if row.mask_sha256 is None:
            raise ImageNotFound(f"Image {image_id} has no mask: PUT one to /v1/images/{image_id}/mask.")
        stored = self._read("masks", row.mask_sha256, f"PUT the mask to /v1/images/{image_id}/mask again")
        return stored if history is None else translate_mask(stored, history, row.classes_version, history.present)

    def copy_image(self, image_id: str, target: Path) -> None:
        """Copy, or link, the file of an image. Raises ImageNotFound if it was deleted, FileLost."""
        self._copy("images", image_id, image_id, target)

    def copy_mask(self, image_id: str, sha256: str, target: Path) -> None:
        """Copy, or link, a mask of an image, as stored. Raises ImageNotFound if the image was deleted, FileLost."""
        self._copy("masks", sha256, image_id, target)

    def put_mask(
        self,
        image_id: str,
        data: bytes,
        *,
        classes: ClassList,
        split: Split | None = None,
        group: str | None = None,
        partial: bool = False,
    ) -> Image:
        """Set or replace the label of an image, as `read_label` reads it. Raises ImageNotFound, MaskInvalid.

        Without `split`, a labelled image keeps its split, and a new label gets that of its near-duplicates; of others,
        every fifth goes to `val`. `group` names the video, place or patient; without it, the image keeps its group.
        """
        image = self.get(image_id)
        with self._decoding:
            ids = read_label(data, width=image.width, height=image.height, classes=classes, partial=partial)
        return self.put_label(image_id, ids, classes=classes, split=split, group=group)

    def put_label(
        self,
        image_id: str,
        ids: Ids,
        *,
        classes: ClassList,
        split: Split | None = None,
        group: str | None = None,
        accepted_from: str | None = None,
        replace: bool = True,
    ) -> Image:
        """Set or replace the label of an image: ids of `classes`, uint8 or uint16 [H, W]. Otherwise as `put_mask`.

        `accepted_from` is the model version whose prediction it is; without `replace`, it replaces no drawn label.
        Raises ImageNotFound, LabelExists, or LabelNotDrawn if an accepted label would go to `val`.
        """
        pixels = class_pixels(ids, classes.ignore_index)
        mask = encode_mask(ids)
        sha256 = sha256_of(mask)
        self._blobs.put("masks", sha256, mask)
        with self._database.write() as session:
            self._database.lock(session, image_id)
            self._database.lock(session, sha256)
            row = _existing(session, image_id)
            self._blobs.put("masks", sha256, mask)
            # Before rows of images change: `delete` takes these locks in the same order.
            locked_pool(session)
            chosen = split or row.split or cluster_split(session, row)
            if accepted_from is not None:
                check_acceptable(row, chosen, replace=replace)
            # A label of a model cannot validate models.
            chosen = chosen or ("labelled" if accepted_from else next_split(session))
            row.label_sequence = count_labelled(session, row, chosen, accepted=accepted_from is not None)
            remove_label(session, row)
            old, row.mask_sha256 = row.mask_sha256, sha256
            if old is not None:
                # A process that is killed after the commit leaves it to the sweep.
                self._blobs.doubt("masks", old)
            row.split, row.labelled_at = chosen, utc_now()
            row.classes_version, row.class_pixels, row.accepted_from = classes.version, pixels, accepted_from
            add_label(session, row)
            row.group_name = group or row.group_name
        self._blobs.confirm("masks", sha256)
        if old is not None:
            self.delete_unused_mask(old)
            self._blobs.confirm("masks", old)
        return row

    def delete(self, image_id: str) -> DeletedImage:
        """Delete an image and its masks. Raises ImageNotFound.

        An active run keeps its own copy until it ends. The worker deletes the masks of past labels, and pictures in
        reports; then `completed_at` is set.
        """
        with self._database.write() as session:
            self._database.lock(session, image_id)
            (deleted,) = _delete(session, [_existing(session, image_id)], "requested")
        self.erase_vectors(deleted.sequence)
        self.delete_unused_images([image_id])
        if deleted.mask_sha256 is not None:
            self.delete_unused_mask(deleted.mask_sha256)
        return deleted

    def delete_unlabelled(self, image_ids: Sequence[str], reason: DeletionReason) -> list[DeletedImage]:
        """Delete the rows of those images that still are unlabelled, in one transaction; their files are kept."""
        with self._database.write() as session:
            # The locks before the counters, as elsewhere, and in one order: nobody waits in a circle.
            for image_id in sorted(image_ids):
                self._database.lock(session, image_id)
            found = select(Image).where(Image.id.in_(image_ids), Image.mask_sha256.is_(None))
            return _delete(session, session.scalars(found.order_by(Image.sequence)).all(), reason)

    def erase_vectors(self, *sequences: int) -> None:
        """Overwrite the embeddings and the hashes of deleted images."""
        self.vectors.erase(*sequences)

    def delete_unused_images(self, image_ids: Sequence[str]) -> None:
        """Delete the files of images, unless the pool has the image (again)."""
        with self._database.write() as session:
            for image_id in sorted(image_ids):
                self._database.lock(session, image_id)
            used = set(session.scalars(select(Image.id).where(Image.id.in_(image_ids))))
            for image_id in image_ids:
                if image_id not in used:
                    self._blobs.delete("images", image_id)

    def delete_unused_mask(self, sha256: str) -> None:
        """Delete a mask file, unless it is the label of an image, or was that of one still in the pool in a run."""
        in_run = exists().where(
            RunLabel.mask_sha256 == sha256,
            RunLabel.run_id == Run.id,
            RunLabel.image_id == Image.id,
            # Otherwise the image was deleted after the run, and added again.
            Run.image_sequence >= Image.sequence,
        )
        with self._database.write() as session:
            self._database.lock(session, sha256)
            if not session.scalar(select(exists().where(Image.mask_sha256 == sha256) | in_run)):
                self._blobs.delete("masks", sha256)

    def _check_space(self, image: NewImage) -> None:
        """Raise PoolFull; images that arrive at the same time may exceed the limit a little."""
        if not self._max_bytes:
            return
        with self._database.read() as session:
            full = read_counts(session).bytes + len(image.data) > self._max_bytes
            if full and session.get(Image, image.sha256) is None:
                raise PoolFull(
                    f"The images in the pool have {self._max_bytes} bytes, the limit: delete some, or raise "
                    "MASKLOOP_POOL_MAX_BYTES."
                )

    def _copy(self, collection: Collection, sha256: str, image_id: str, target: Path) -> None:
        try:
            self._blobs.copy(collection, sha256, target)
        except FileNotFoundError:
            self.get(image_id)
            raise FileLost(
                f"The file {sha256} of image {image_id} is missing in the data folder: restore it."
            ) from None

    def _read(self, collection: Collection, sha256: str, remedy: str) -> bytes:
        try:
            return self._blobs.read(collection, sha256)
        except FileNotFoundError:
            raise FileLost(f"The file is missing in the storage: {remedy}, or restore it.") from None


def _existing(session: Session, image_id: str) -> Image:
    row = session.get(Image, image_id)
    if row is None:
        raise ImageNotFound(f"There is no image {image_id!r} in the pool: GET /v1/images lists them.")
    return row


def _delete(session: Session, rows: Sequence[Image], reason: DeletionReason) -> list[DeletedImage]:
    """Delete rows, in the transaction of the caller, which holds the locks of the images."""
    if not rows:
        return []
    newest = count_deleted(session, rows, reason)
    for row in rows:
        remove_label(session, row)
    ids = [row.id for row in rows]
    # In the order in which clusters are joined, so that both never wait for each other.
    session.execute(select(Image.id).where(Image.id.in_(ids)).order_by(Image.sequence).with_for_update())
    deleted = [
        DeletedImage(
            sequence=row.sequence,
            image_id=row.id,
            mask_sha256=row.mask_sha256,
            deletion_sequence=number,
            reason=reason,
        )
        for number, row in enumerate(rows, start=newest - len(rows) + 1)
    ]
    session.add_all(deleted)
    session.execute(delete(ImageAnalysis).where(ImageAnalysis.sequence.in_([row.sequence for row in rows])))
    session.execute(delete(Image).where(Image.id.in_(ids)))
    for leader in session.scalars(select(Image.duplicate_of).where(Image.duplicate_of.in_(ids)).distinct()).all():
        pass_on_duplicates(session, str(leader))
    return deleted


def _filtered(which: LabelFilter) -> Select[Image]:
    query = select(Image)
    if which == "labelled":
        return query.where(Image.mask_sha256.is_not(None))
    return query.where(Image.mask_sha256.is_(None)) if which == "unlabelled" else query
