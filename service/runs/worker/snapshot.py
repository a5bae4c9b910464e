"""Take the snapshot of a run, and write it as a data set folder for the trainer and the gate.

    DATASET/classes.toml        classes of the active model
    DATASET/images/SHA256.ext   hard links to the files of the pool, or copies
    DATASET/masks/SHA256.png
    DATASET/splits/{labelled,unlabelled,val}.txt

The folder is complete if it exists. It holds copies of images that clients may delete, so it is deleted when the run
ends.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import tomli_w
from PIL import Image as PillowImage
from sqlalchemy import func, insert, literal, select
from sqlalchemy.orm import Session

from service.errors import FileLost, ImageNotFound
from service.images.image_store import ImageStore
from service.images.pool_counters import locked_pool
from service.models.bundle import Manifest
from service.releases.gate.validation_samples import SampleFiles
from service.runs.leases.lease import Lease
from service.runs.run_store import RunStore, add_event, deleted_since, existing_run
from service.segmentation.decode import EXTENSIONS, Limits, decode
from service.storage.tables import DeletedImage, Image, Pool, Role, Run, RunLabel

LABEL_COLUMNS = ["run_id", "image_id", "mask_sha256", "split", "group_name"]
ROLES: tuple[Role, ...] = ("labelled", "unlabelled", "val")
# Formats that the trainer reads; others are converted to PNG.
TRAINER_READS = {"jpg", "png", "webp", "tif"}


@dataclass(frozen=True, slots=True)
class Sizes:
    """Number of images by role."""

    labelled: int
    unlabelled: int
    val: int


def take_snapshot(lease: Lease) -> bool:
    """Record which images and labels the run uses, unless it has a snapshot; return whether it is new."""
    with lease.fenced() as session:
        run = existing_run(session, lease.run_id)
        if run.image_sequence is not None:
            return False
        pool = locked_pool(session)
        if run.repeats is None:
            _select_pool(session, run, pool)
        else:
            _select_again(session, run, existing_run(session, run.repeats))
        run.deletion_sequence = pool.deletion_sequence
        counted = select(RunLabel.split, func.count()).where(RunLabel.run_id == run.id).group_by(RunLabel.split)
        labelled = dict(session.execute(counted).all())
        add_event(session, run.id, "snapshot", images={"unlabelled": run.unlabelled, **labelled})
    return True


def _select_pool(session: Session, run: Run, pool: Pool) -> None:
    """Select all images and labels of the pool."""
    labels = select(literal(run.id), Image.id, Image.mask_sha256, Image.split, Image.group_name)
    session.execute(insert(RunLabel).from_select(LABEL_COLUMNS, labels.where(Image.mask_sha256.is_not(None))))
    run.image_sequence, run.label_sequence = pool.image_sequence, pool.label_sequence
    run.unlabelled = pool.unlabelled


def _select_again(session: Session, run: Run, earlier: Run) -> None:
    """Select what an earlier run used, without images deleted since."""
    deleted = select(DeletedImage.image_id).where(deleted_since(earlier))
    were_labelled = select(RunLabel.image_id).where(RunLabel.run_id == earlier.id)
    labels = select(literal(run.id), RunLabel.image_id, RunLabel.mask_sha256, RunLabel.split, RunLabel.group_name)
    labels = labels.where(RunLabel.run_id == earlier.id, RunLabel.image_id.not_in(deleted))
    session.execute(insert(RunLabel).from_select(LABEL_COLUMNS, labels))
    run.image_sequence, run.label_sequence = earlier.image_sequence, earlier.label_sequence
    if earlier.unlabelled is not None:
        lost = deleted.where(DeletedImage.image_id.not_in(were_labelled))
        count = select(func.count()).select_from(lost.subquery())
        run.unlabelled = earlier.unlabelled - session.scalars(count).one()


@dataclass(frozen=True, kw_only=True)
class DatasetWriter:
    """Writes the data set of a run."""

    run_id: str
    runs: RunStore
    images: ImageStore
    limits: Limits
    check: Callable[[], None]
    """Called for each image; raises to stop."""

    def write(self, folder: Path, manifest: Manifest) -> Sizes:
        """Write the data set, unless it exists. Raises FileLost for a missing file."""
        if not folder.exists():
            for leftover in folder.parent.glob(f".{folder.name}.*.partial"):
                shutil.rmtree(leftover, ignore_errors=True)
            # A worker that lost the run may still write to one.
            partial = folder.with_name(f".{folder.name}.{uuid4().hex}.partial")
            for name in ("images", "masks", "splits"):
                (partial / name).mkdir(parents=True)
            (partial / "classes.toml").write_text(_classes(manifest), encoding="utf-8")
            self._write_labels(partial)
            _write_names(partial, "unlabelled", self._added_unlabelled(partial))
            partial.rename(folder)
        return Sizes(*(len(names(folder, role)) for role in ROLES))

    def _write_labels(self, folder: Path) -> None:
        labels = self.runs.labels(self.run_id)
        for split in ("labelled", "val"):
            chosen = (label for label in labels if label.split == split)
            _write_names(folder, split, (label.image_id for label in chosen if self._add_label(folder, label)))

    def _add_label(self, folder: Path, label: RunLabel) -> bool:
        try:
            media_type = self.images.get(label.image_id).media_type
            if label.mask_sha256 is None:
                raise FileLost(f"The mask of image {label.image_id} in run {self.run_id} was not recorded.")
            self.images.copy_mask(label.image_id, label.mask_sha256, folder / "masks" / f"{label.image_id}.png")
        except ImageNotFound:
            return False
        return self._add_image(folder, label.image_id, media_type)

    def _added_unlabelled(self, folder: Path) -> Iterator[str]:
        after = 0
        while chunk := self.runs.unlabelled(self.run_id, after):
            yield from (name for _, name, media_type in chunk if self._add_image(folder, name, media_type))
            after = chunk[-1][0]

    def _add_image(self, folder: Path, image_id: str, media_type: str) -> bool:
        """Add an image; return whether it still exists."""
        self.check()
        extension = EXTENSIONS[media_type]
        target = folder / "images" / f"{image_id}.{extension}"
        try:
            self.images.copy_image(image_id, target)
        except ImageNotFound:
            return False
        if extension not in TRAINER_READS:
            pixels = decode(target.read_bytes(), self.limits).image_HW3
            PillowImage.fromarray(pixels).save(target.with_suffix(".png"), compress_level=1)
            target.unlink()
        return True


def names(dataset: Path, role: Role) -> list[str]:
    """Read the names of a split."""
    return (dataset / "splits" / f"{role}.txt").read_text(encoding="utf-8").split()


def image_file(dataset: Path, name: str) -> Path:
    """Return the image file of a name. Raises FileLost."""
    candidates = (dataset / "images" / f"{name}.{extension}" for extension in sorted(TRAINER_READS))
    found = next((file for file in candidates if file.exists()), None)
    if found is None:
        raise FileLost(f"Image {name} is missing in the run's data set: start a new run.")
    return found


def validation_files(dataset: Path, labels: Iterable[RunLabel]) -> Iterator[SampleFiles]:
    """List the validation images of a data set. Raises FileLost."""
    groups = {label.image_id: label.group_name for label in labels}
    for name in names(dataset, "val"):
        yield SampleFiles(image_file(dataset, name), dataset / "masks" / f"{name}.png", groups.get(name))


def _write_names(folder: Path, role: Role, listed: Iterable[str]) -> None:
    with (folder / "splits" / f"{role}.txt").open("w", encoding="utf-8") as file:
        file.writelines(f"{name}\n" for name in listed)


def _classes(manifest: Manifest) -> str:
    classes = [{"name": entry.name, "color": list(entry.color)} for entry in manifest.classes]
    return tomli_w.dumps({"ignore_index": manifest.ignore_index, "classes": classes})
