"""Fill a pool with rows, without files: what is measured reads the database."""

import hashlib
from collections.abc import Iterator
from typing import Any

from sqlalchemy import insert, update

from service.state import State
from service.storage.tables import Image, Pool, Run, Split, utc_now

CHUNK = 10_000
LABELLED, VAL = 800, 200
"""Labelled rows, the oldest; a pool has few, since people draw them."""
IMAGE_BYTES = 100_000


def fill(state: State, count: int) -> None:
    """Add `count` rows to an empty pool, `LABELLED + VAL` of them with a label, and a run that learned from them."""
    for first in range(1, count + 1, CHUNK):
        rows = list(_rows(first, min(first + CHUNK, count + 1)))
        with state.database.write() as session:
            session.execute(insert(Image), rows)
    labels = LABELLED + VAL
    past = Run(id="past", number=1, status="judged", reason="auto", image_sequence=count, label_sequence=labels)
    with state.database.write() as session:
        session.execute(
            update(Pool).values(
                image_sequence=count,
                label_sequence=labels,
                unlabelled=count - labels,
                labelled=LABELLED,
                val=VAL,
                bytes=count * IMAGE_BYTES,
                unlabelled_bytes=(count - labels) * IMAGE_BYTES,
            )
        )
        session.add(past)


def _rows(first: int, end: int) -> Iterator[dict[str, Any]]:
    now = utc_now()
    for sequence in range(first, end):
        split: Split | None = None
        if sequence <= LABELLED + VAL:
            split = "labelled" if sequence <= LABELLED else "val"
        yield {
            "id": hashlib.sha256(str(sequence).encode()).hexdigest(),
            "sequence": sequence,
            "media_type": "image/jpeg",
            "width": 640,
            "height": 480,
            "bytes": IMAGE_BYTES,
            "created_at": now,
            "split": split,
            "mask_sha256": hashlib.sha256(f"mask {sequence}".encode()).hexdigest() if split else None,
            "labelled_at": now if split else None,
            "label_sequence": sequence if split else None,
        }
