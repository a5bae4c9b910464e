"""A run's snapshot of the pool, laid out as the data set folder that the trainer reads.

    DATASET/classes.toml   the active model's classes
    DATASET/images/SHA256.ext   hard links to the pool's files, or copies where the file system has none
    DATASET/masks/SHA256.png
    DATASET/splits/{labelled,unlabelled,val}.txt

It is built beside its place and moved in, so a folder that is there is complete.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import tomli_w
from PIL import Image

from service.images.image_store import ImageStore
from service.models.bundle import Manifest
from service.runs.run_store import RunStore
from service.segmentation.decode import EXTENSIONS, Limits, decode
from service.storage.tables import Role

ROLES: tuple[Role, ...] = ("labelled", "unlabelled", "val")
# What the trainer's folder reader looks for; anything else is written anew as PNG.
TRAINER_READS = {"jpg", "png", "webp", "tif"}


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many images of each role a run has."""

    labelled: int
    unlabelled: int
    val: int


def build_dataset(
    folder: Path, run_id: str, manifest: Manifest, *, runs: RunStore, images: ImageStore, limits: Limits
) -> Sizes:
    """Lay out the snapshot of a run; a folder that is there is complete and left as it is.

    Args:
        folder: The data set folder to make.
        run_id: Whose snapshot.
        manifest: The model whose classes the masks were drawn with.
        runs: Where the snapshot is recorded.
        images: The pool. It keeps the images of a run that is not over.
        limits: Of images that have to be decoded here.

    Raises:
        ImageNotFound: An image is gone in spite of that.
        FileLost: Its row is there, and its file or mask is not.
    """
    members = {role: runs.images(run_id, role) for role in ROLES}
    sizes = Sizes(*(len(members[role]) for role in ROLES))
    if folder.exists():
        return sizes
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for name in ("images", "masks", "splits"):
        (partial / name).mkdir(parents=True)
    (partial / "classes.toml").write_text(_classes(manifest), encoding="utf-8")
    for role, ids in members.items():
        for image_id in ids:
            _place_image(images, image_id, partial / "images", limits)
            if role != "unlabelled":
                _place(images.mask_path(image_id), partial / "masks" / f"{image_id}.png")
        (partial / "splits" / f"{role}.txt").write_text("".join(f"{name}\n" for name in ids), encoding="utf-8")
    partial.rename(folder)
    return sizes


def _classes(manifest: Manifest) -> str:
    classes = [{"name": entry.name, "color": list(entry.color)} for entry in manifest.classes]
    return tomli_w.dumps({"ignore_index": manifest.ignore_index, "classes": classes})


def _place_image(images: ImageStore, image_id: str, folder: Path, limits: Limits) -> None:
    source, extension = images.path(image_id), EXTENSIONS[images.get(image_id).media_type]
    if extension in TRAINER_READS:
        _place(source, folder / f"{image_id}.{extension}")
    else:
        pixels = decode(source.read_bytes(), limits).image_HW3
        Image.fromarray(pixels).save(folder / f"{image_id}.png", compress_level=1)


def _place(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        # Another file system, or one without hard links.
        shutil.copyfile(source, target)
