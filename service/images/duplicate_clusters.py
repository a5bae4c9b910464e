"""Clusters of near-duplicates: an image and those whose `duplicate_of` is its id."""

from __future__ import annotations

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from service.storage.tables import Image, Split


def cluster_id(image: type[Image] = Image) -> ColumnElement[str]:
    """Id of an image's cluster, in SQL: that of the image itself if it has no near-duplicate."""
    return func.coalesce(image.duplicate_of, image.id)


def cluster_split(session: Session, image: Image) -> Split | None:
    """Split of the labels in the cluster of an image: "val" if any is; None if nothing in it is labelled."""
    first = image.duplicate_of or image.id
    # Not by `cluster_id`: these conditions have indexes.
    splits = {session.scalar(select(Image.split).where(Image.id == first))}
    splits |= set(session.scalars(select(Image.split).where(Image.duplicate_of == first).distinct()))
    return "val" if "val" in splits else "labelled" if "labelled" in splits else None


def join_cluster(session: Session, image: Image, other: Image) -> None:
    """Mark an image, and its own near-duplicates, as near-duplicates of the leader of another one."""
    image.duplicate_of = other.duplicate_of or other.id
    session.execute(update(Image).where(Image.duplicate_of == image.id).values(duplicate_of=image.duplicate_of))


def pass_on_duplicates(session: Session, image_id: str) -> None:
    """After the deletion of an image: its earliest near-duplicate takes its place."""
    # Locked in the order of the analysis, which marks images at the same time.
    others = select(Image.id).where(Image.duplicate_of == image_id).order_by(Image.sequence).with_for_update()
    heir = next(iter(session.scalars(others).all()), None)
    if heir is not None:
        session.execute(update(Image).where(Image.duplicate_of == image_id).values(duplicate_of=heir))
        session.execute(update(Image).where(Image.id == heir).values(duplicate_of=None))
