"""Take the snapshot of a run, and write it as a data set folder for the trainer and the gate.

    DATASET/classes.toml        the list of classes for which the run trains
    DATASET/images/SHA256.ext   hard links to the files of the pool, or copies
    DATASET/masks/SHA256.png
    DATASET/splits/{labelled,unlabelled,val}.txt
    DATASET/splits/left_out.txt near-duplicates of validation images

Near-duplicates of validation images are in no split for training. The folder is complete if it exists. It holds copies
of images that clients may delete, so it is deleted when the run ends.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import tomli_w
from PIL import Image as PillowImage
from sqlalchemy import func, insert, literal, select
from sqlalchemy.orm import Session

from service.analyses.validation_neighbours import ValidationNeighbours
from service.classes.class_list import ClassHistory, ClassList
from service.classes.class_store import newest_version
from service.curation.perceptual_hash import perceptual_hash
from service.errors import BadInput, FileLost, ImageNotFound
from service.images.image_store import ImageStore
from service.images.label_masks import translate_mask
from service.images.pool_counters import locked_pool
from service.releases.gate.validation_samples import SampleFiles
from service.runs.leases.lease import Lease
from service.runs.run_store import RunStore, add_event, deleted_since, existing_run
from service.segmentation.decode import EXTENSIONS, Limits, decode
from service.storage.durable_files import flush_file, sync_folder, write_durably
from service.storage.tables import DeletedImage, Image, Pool, Role, Run, RunLabel

LABEL_COLUMNS = ["run_id", "image_id", "mask_sha256", "split", "group_name", "classes_version", "accepted_from"]
LEFT_OUT = "left_out"
# Formats that the trainer reads; others are converted to PNG.
TRAINER_READS = {"jpg", "png", "webp", "tif"}


@dataclass(frozen=True, slots=True)
class Sizes:
    """Number of images by role."""

    labelled: int
    unlabelled: int
    val: int
    left_out: int = 0
    """Images that do not train, since they are near-duplicates of validation images."""


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
        run.classes_version = _classes_version(session, run)
        counted = select(RunLabel.split, func.count()).where(RunLabel.run_id == run.id).group_by(RunLabel.split)
        labelled = dict(session.execute(counted).all())
        made = select(func.count()).where(RunLabel.run_id == run.id, RunLabel.accepted_from.is_not(None))
        accepted = session.scalars(made).one()
        add_event(session, run.id, "snapshot", images={"unlabelled": run.unlabelled, **labelled}, accepted=accepted)
    return True


def _select_pool(session: Session, run: Run, pool: Pool) -> None:
    """Select all images and labels of the pool."""
    # Near-duplicates are not independent either.
    group = func.coalesce(Image.group_name, Image.duplicate_of, Image.id)
    columns = (Image.id, Image.mask_sha256, Image.split, group, Image.classes_version, Image.accepted_from)
    labels = select(literal(run.id), *columns).where(Image.mask_sha256.is_not(None))
    session.execute(insert(RunLabel).from_select(LABEL_COLUMNS, labels))
    run.image_sequence, run.label_sequence = pool.image_sequence, pool.label_sequence
    run.unlabelled = pool.unlabelled


def _select_again(session: Session, run: Run, earlier: Run) -> None:
    """Select what an earlier run used, without images deleted since."""
    deleted = select(DeletedImage.image_id).where(deleted_since(earlier))
    were_labelled = select(RunLabel.image_id).where(RunLabel.run_id == earlier.id)
    columns = [getattr(RunLabel, name) for name in LABEL_COLUMNS[1:]]
    labels = select(literal(run.id), *columns)
    labels = labels.where(RunLabel.run_id == earlier.id, RunLabel.image_id.not_in(deleted))
    session.execute(insert(RunLabel).from_select(LABEL_COLUMNS, labels))
    run.image_sequence, run.label_sequence = earlier.image_sequence, earlier.label_sequence
    if earlier.unlabelled is not None:
        lost = deleted.where(DeletedImage.image_id.not_in(were_labelled))
        count = select(func.count()).select_from(lost.subquery())
        run.unlabelled = earlier.unlabelled - session.scalars(count).one()


def _classes_version(session: Session, run: Run) -> int | None:
    """Version of the class list for which a run trains: of the run that it repeats, or the present one."""
    if run.repeats is not None:
        return existing_run(session, run.repeats).classes_version
    return newest_version(session)


@dataclass(frozen=True, kw_only=True)
class DatasetWriter:
    """Writes the data set of a run."""

    run_id: str
    runs: RunStore
    images: ImageStore
    history: ClassHistory
    classes: ClassList
    """The list for which the run trains."""
    limits: Limits
    check: Callable[[], None]
    """Called for each image; raises to stop."""

    def write(self, folder: Path, base_version: str) -> Sizes:
        """Write the data set, unless it exists. Raises FileLost for a missing file.

        Near-duplicates are those that the model `base_version` sees.
        """
        if not folder.exists():
            for leftover in folder.parent.glob(f".{folder.name}.*.partial"):
                shutil.rmtree(leftover, ignore_errors=True)
            # A worker that lost the run may still write to one.
            partial = folder.with_name(f".{folder.name}.{uuid4().hex}.partial")
            folders = [partial / name for name in ("images", "masks", "splits")]
            for each in folders:
                each.mkdir(parents=True)
            write_durably(partial / "classes.toml", _classes(self.classes).encode())
            validation = self.runs.validation_neighbours(self.run_id, base_version, self.images.vectors, self._hash)
            self._write_labels(partial, validation)
            _write_names(partial, "unlabelled", self._added_unlabelled(partial, validation))
            flush_file(partial / "splits" / f"{LEFT_OUT}.txt")
            # Its other files are flushed: a complete folder must be complete after a power cut, too.
            for each in (*folders, partial):
                sync_folder(each)
            partial.rename(folder)
            sync_folder(folder.parent)
        return Sizes(*(len(names(folder, role)) for role in ("labelled", "unlabelled", "val", LEFT_OUT)))

    def _write_labels(self, folder: Path, validation: ValidationNeighbours) -> None:
        near = self._labels_near(validation)
        _leave_out(folder, near)
        labels = [label for label in self.runs.labels(self.run_id) if label.image_id not in near]
        newest = self.runs.get(self.run_id).image_sequence or 0
        for split in ("labelled", "val"):
            chosen = (label for label in labels if label.split == split)
            added = (label.image_id for label in chosen if self._add_label(folder, label, newest))
            _write_names(folder, split, added)

    def _labels_near(self, validation: ValidationNeighbours) -> frozenset[str]:
        labelled = self.runs.labelled_sequences(self.run_id, "labelled")
        ids = (image_id for (_, image_id), near in zip(labelled, validation.near(labelled), strict=True) if near)
        return self.runs.in_validation_clusters(self.run_id).union(ids)

    def _add_label(self, folder: Path, label: RunLabel, newest: int) -> bool:
        try:
            image = self.images.get(label.image_id)
            if image.sequence > newest:
                # Deleted, and added again.
                return False
            if label.mask_sha256 is None:
                raise FileLost(f"The mask of image {label.image_id} in run {self.run_id} was not recorded.")
            self._add_mask(label.image_id, label.mask_sha256, label.classes_version, folder / "masks")
        except ImageNotFound:
            return False
        return self._add_image(folder, label.image_id, image.media_type)

    def _add_mask(self, image_id: str, sha256: str, version: int | None, folder: Path) -> None:
        target = folder / f"{image_id}.png"
        self.images.copy_mask(image_id, sha256, target)
        if not self.history.keeps_ids(version or 1, self.classes):
            translated = translate_mask(target.read_bytes(), self.history, version, self.classes)
            # It may be a link to the file of the pool.
            target.unlink()
            write_durably(target, translated)

    def _added_unlabelled(self, folder: Path, validation: ValidationNeighbours) -> Iterator[str]:
        after = 0
        while chunk := self.runs.unlabelled(self.run_id, after):
            near = validation.near([(image.sequence, image.image_id) for image in chunk])
            left_out = {i.image_id for i, is_near in zip(chunk, near, strict=True) if is_near or i.near_validation}
            _leave_out(folder, left_out)
            kept = (image for image in chunk if image.image_id not in left_out)
            yield from (i.image_id for i in kept if self._add_image(folder, i.image_id, i.media_type))
            after = chunk[-1].sequence

    def _hash(self, image_id: str) -> int:
        """Perceptual hash of an image that is not analysed; 0, none, if it cannot be read."""
        self.check()
        try:
            return perceptual_hash(decode(self.images.read(image_id), self.limits).image_HW3)
        except (BadInput, ImageNotFound, FileLost):
            return 0

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
            flush_file(target.with_suffix(".png"))
            target.unlink()
        return True


def names(dataset: Path, role: str) -> list[str]:
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


def _leave_out(folder: Path, listed: Iterable[str]) -> None:
    with (folder / "splits" / f"{LEFT_OUT}.txt").open("a", encoding="utf-8") as file:
        file.writelines(f"{name}\n" for name in listed)


def _write_names(folder: Path, role: Role, listed: Iterable[str]) -> None:
    with (folder / "splits" / f"{role}.txt").open("w", encoding="utf-8") as file:
        file.writelines(f"{name}\n" for name in listed)
        file.flush()
        os.fsync(file.fileno())


def _classes(listed: ClassList) -> str:
    classes = [{"name": each.name, "color": list(each.color)} for each in listed.classes]
    return tomli_w.dumps({"ignore_index": listed.ignore_index, "classes": classes})
