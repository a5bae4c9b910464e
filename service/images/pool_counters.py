"""Counters and sequences of the pool, changed in the transaction of the change that they count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, select, update
from sqlalchemy.orm import Session

from service.storage.deletion_columns import DeletionReason
from service.storage.tables import Image, Pool, Role, Split

LABELS_PER_VAL = 5
COUNT_ADDED = (
    update(Pool)
    .values(
        image_sequence=Pool.image_sequence + bindparam("images"),
        unlabelled=Pool.unlabelled + bindparam("images"),
        unlabelled_bytes=Pool.unlabelled_bytes + bindparam("size"),
        bytes=Pool.bytes + bindparam("size"),
    )
    .returning(Pool.image_sequence)
)
"""Built once, since uploads are frequent."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Number of images: labelled for training, labelled for validation, unlabelled; and their total size in bytes."""

    labelled: int
    """Including `accepted`."""
    accepted: int
    """Predictions of models that were accepted as labels."""
    val: int
    unlabelled: int
    bytes: int


def read_counts(session: Session) -> Counts:
    """Read the counters."""
    pool = session.get_one(Pool, 1)
    return Counts(
        labelled=pool.labelled, accepted=pool.accepted, val=pool.val, unlabelled=pool.unlabelled, bytes=pool.bytes
    )


def locked_pool(session: Session) -> Pool:
    """Read the counters and keep the pool unchanged until the end of the write transaction."""
    return session.scalars(select(Pool).with_for_update()).one()


def count_added(session: Session, images: int, size: int) -> int:
    """Count new unlabelled images of `size` bytes together; return the sequence of the last one."""
    return int(session.connection().execute(COUNT_ADDED, {"images": images, "size": size}).scalar_one())


def count_deleted(session: Session, images: Sequence[Image], reason: DeletionReason) -> int:
    """Count deleted images; return the deletion sequence of the last one."""
    counted = Counter({"deletion_sequence": len(images)})
    for image in images:
        counted.subtract({_role(image.split): 1, "bytes": image.bytes})
        if image.split is None:
            counted["unlabelled_bytes"] -= image.bytes
        if image.accepted_from is not None:
            counted["accepted"] -= 1
    if reason != "requested":
        counted[f"deleted_by_{reason}"] = len(images)
    return _change(session, Pool.deletion_sequence, **counted)


def count_labelled(session: Session, image: Image, after: Split, *, accepted: bool = False) -> int:
    """Count a label, new or replaced, of an image that still has its split before; return its label sequence."""
    moved: dict[str, int] = {} if image.split == after else {_role(image.split): -1, after: 1}
    moved["accepted"] = int(accepted) - int(image.accepted_from is not None)
    if image.split is None:
        moved["unlabelled_bytes"] = -image.bytes
    return _change(session, Pool.label_sequence, label_sequence=1, **moved)


def next_split(session: Session) -> Split:
    """Choose the split of a new label: every fifth that was drawn validates."""
    pool = locked_pool(session)
    drawn = pool.labelled - pool.accepted + pool.val
    return "val" if (pool.val + 1) * LABELS_PER_VAL <= drawn + 1 else "labelled"


def _role(split: Split | None) -> Role:
    return split or "unlabelled"


def _change(session: Session, returned: Any, **changes: int) -> int:
    values = {name: getattr(Pool, name) + change for name, change in changes.items()}
    return int(session.execute(update(Pool).values(values).returning(returned)).scalar_one())
