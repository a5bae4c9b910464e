"""Count the labels and labelled pixels of each class, in the transactions that change them.

So they are read in the same time at any size of the pool.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from service.classes.class_list import ClassHistory, ClassList
from service.storage.tables import UNCOUNTED, Image, LabelCount, Split


@dataclass(frozen=True, slots=True)
class CountedClass:
    """Labels that show a class, in a version of the list."""

    version: int
    identity: int | None
    """None: an id that is no class of that version."""
    name: str
    """In that version."""
    labels: int
    pixels: int


@dataclass(frozen=True, slots=True)
class Labelled:
    """Labels by class, as the present list has them."""

    labels: Mapping[int, int]
    """Labels that show a class, by its id; a label that shows two merged classes counts twice."""
    pixels: Mapping[int, int]
    set_aside: tuple[CountedClass, ...]
    """Labels of classes without a counterpart in the present list: their pixels are ignored."""


def class_pixels(ids_HW: npt.NDArray[Any], ignore_index: int) -> dict[str, Any]:
    """Count the pixels of each class id of a mask, without ignored ones; the keys are ids, for JSON."""
    counts = np.bincount(ids_HW.ravel())
    return {str(class_id): int(counts[class_id]) for class_id in np.flatnonzero(counts) if class_id != ignore_index}


def add_label(session: Session, image: Image) -> None:
    """Count the label of an image. The caller holds the lock of the pool."""
    _add(session, image, 1)


def remove_label(session: Session, image: Image) -> None:
    """Count the label of an image no more. The caller holds the lock of the pool."""
    _add(session, image, -1)


def count_uncounted(session: Session) -> int:
    """Number of labels of a former version of the service, which are in no count yet."""
    return session.scalars(select(func.count()).select_from(Image).where(text(UNCOUNTED))).one()


def read_labelled(session: Session, history: ClassHistory, split: Split | None = None) -> Labelled:
    """Read the counts of one split, or of both."""
    target = history.present
    labels: dict[int, int] = dict.fromkeys(range(len(target)), 0)
    pixels = dict(labels)
    aside: dict[tuple[int, int], CountedClass] = {}
    query = select(LabelCount).order_by(LabelCount.classes_version, LabelCount.class_id)
    for row in session.scalars(query if split is None else query.where(LabelCount.split == split)):
        source = history.version(row.classes_version)
        identity = source.classes[row.class_id].identity if row.class_id < len(source) else None
        found = history.find_id(identity, target)
        if found is None:
            before = aside.get((row.classes_version, row.class_id))
            aside[row.classes_version, row.class_id] = _counted(source, row, before)
        else:
            labels[found] += row.labels
            pixels[found] += row.pixels
    return Labelled(labels, pixels, tuple(aside.values()))


def _counted(source: ClassList, row: LabelCount, before: CountedClass | None) -> CountedClass:
    known = source.classes[row.class_id] if row.class_id < len(source) else None
    return CountedClass(
        version=source.version,
        identity=known.identity if known else None,
        name=known.name if known else f"id {row.class_id}",
        labels=row.labels + (before.labels if before else 0),
        pixels=row.pixels + (before.pixels if before else 0),
    )


def _add(session: Session, image: Image, sign: int) -> None:
    if image.classes_version is None or image.class_pixels is None or image.split is None:
        return
    counted = {int(class_id): pixels for class_id, pixels in image.class_pixels.items()}
    key = {"classes_version": image.classes_version, "split": image.split}
    query = select(LabelCount).filter_by(**key).where(LabelCount.class_id.in_(counted))
    rows = {row.class_id: row for row in session.scalars(query)}
    for class_id, pixels in counted.items():
        row = rows.get(class_id) or LabelCount(**key, class_id=class_id, labels=0, pixels=0)
        session.add(row)
        row.labels, row.pixels = row.labels + sign, row.pixels + sign * pixels
        if row.labels == 0:
            session.delete(row)
    session.flush()
