"""Write the labels of the pool as a data set folder, from which the trainer exports.

FOLDER/classes.toml
FOLDER/images/ID.jpg        hard links to the files of the pool, or copies
FOLDER/masks/ID.png
FOLDER/splits/{labelled,val}.txt
FOLDER/groups.csv           videos, places or patients of the images
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import tomli_w

from service.conversion.pool_classes import PoolClasses, read_label
from service.errors import ImageNotFound, NothingLabelled
from service.images.image_store import ImageStore
from service.segmentation.decode import EXTENSIONS
from service.storage.tables import Image

PAGE = 1000


def write_pool_dataset(folder: Path, images: ImageStore, classes: PoolClasses) -> None:
    """Write the data set into a new folder. Raises NothingLabelled, FileLost."""
    for part in ("images", "masks", "splits"):
        (folder / part).mkdir(parents=True)
    splits: dict[str, list[str]] = defaultdict(list)
    groups = []
    for image in _labelled(images):
        try:
            (folder / f"masks/{image.id}.png").write_bytes(read_label(images, classes, image.id))
            images.copy_image(image.id, folder / f"images/{image.id}.{EXTENSIONS[image.media_type]}")
        except ImageNotFound:
            # Deleted meanwhile. An image without a mask file is in no split.
            continue
        splits[image.split or "labelled"].append(image.id)
        if image.group_name:
            groups.append((image.id, image.group_name))
    if not splits:
        raise NothingLabelled("The pool has no labels: PUT some to /v1/images/ID/mask, or import a data set.")
    for split, names in splits.items():
        (folder / f"splits/{split}.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    if groups:
        with (folder / "groups.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("name", "group"), *groups])
    entries = [{"name": each.name, "color": list(each.color)} for each in classes.present.classes]
    table = {"ignore_index": classes.present.ignore_index, "classes": entries}
    (folder / "classes.toml").write_text(tomli_w.dumps(table), encoding="utf-8")


def _labelled(images: ImageStore) -> Iterator[Image]:
    cursor = None
    while True:
        page = images.page(which="labelled", limit=PAGE, cursor=cursor)
        yield from page.images
        cursor = page.next_cursor
        if cursor is None:
            return
