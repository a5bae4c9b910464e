"""Write the snapshot of a run as a data set folder for the trainer.

    DATASET/classes.toml        classes of the active model
    DATASET/images/SHA256.ext   hard links to the files of the pool, or copies
    DATASET/masks/SHA256.png
    DATASET/splits/{labelled,unlabelled,val}.txt

The folder is complete if it exists.
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
# Formats that the trainer reads; others are converted to PNG.
TRAINER_READS = {"jpg", "png", "webp", "tif"}


@dataclass(frozen=True, slots=True)
class Sizes:
    """Number of images by role."""

    labelled: int
    unlabelled: int
    val: int


def build_dataset(
    folder: Path, run_id: str, manifest: Manifest, *, runs: RunStore, images: ImageStore, limits: Limits
) -> Sizes:
    """Write the snapshot of a run, unless it exists. Raises ImageNotFound, or FileLost for a missing file."""
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
            _add_image(images, image_id, partial / "images", limits)
            if role != "unlabelled":
                _link_or_copy(images.mask_path(image_id), partial / "masks" / f"{image_id}.png")
        (partial / "splits" / f"{role}.txt").write_text("".join(f"{name}\n" for name in ids), encoding="utf-8")
    partial.rename(folder)
    return sizes


def _classes(manifest: Manifest) -> str:
    classes = [{"name": entry.name, "color": list(entry.color)} for entry in manifest.classes]
    return tomli_w.dumps({"ignore_index": manifest.ignore_index, "classes": classes})


def _add_image(images: ImageStore, image_id: str, folder: Path, limits: Limits) -> None:
    source, extension = images.path(image_id), EXTENSIONS[images.get(image_id).media_type]
    if extension in TRAINER_READS:
        _link_or_copy(source, folder / f"{image_id}.{extension}")
    else:
        pixels = decode(source.read_bytes(), limits).image_HW3
        Image.fromarray(pixels).save(folder / f"{image_id}.png", compress_level=1)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        # Another file system, or one without hard links.
        shutil.copyfile(source, target)
