"""The snapshot of a run, and the data set that trainer and gate read."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from service.errors import FileLost
from service.releases.gate.validation_samples import read_samples
from service.runs.leases.lease import claim
from service.runs.worker.snapshot import Sizes, names, take_snapshot, validation_files
from service.state import State
from service.storage.tables import Run
from tests.crash_disk import crash_disk
from tests.service.class_lists import TINY
from tests.service.conftest import blob_file, encoded, read
from tests.service.runs.conftest import fill, register_worker, write_dataset
from tests.service.tiny_bundle import COLORS, NAMES, nearest, picture

OTHER_MASK = encoded(np.full((30, 40), 2, np.uint8))


def start(loop: State) -> Run:
    register_worker(loop)
    return loop.retrain_policy.start("manual")


def test_snapshot_becomes_a_data_set_that_the_trainer_reads(loop: State, tmp_path: Path) -> None:
    layouts = pytest.importorskip("trainer.data.readers.layouts", reason="the trainer reads the data set")
    ids = fill(loop, val=1)
    # A format that the data sets of the trainer do not support.
    ids.append(loop.images.add(encoded(picture(seed=9), "BMP"))[0].id)
    run = start(loop)
    for _ in range(2):
        assert write_dataset(loop, run.id, tmp_path / "set") == Sizes(labelled=2, unlabelled=4, val=1)
        loop.images.add(encoded(picture(seed=10)))
    dataset = layouts.open_dataset(tmp_path / "set")
    assert dataset.taxonomy.names == NAMES
    assert dataset.taxonomy.colors == COLORS
    assert {sample.name for sample in dataset.split("unlabelled")} == set(ids[3:])
    sample = next(sample for sample in dataset.split("labelled") if sample.name == ids[0])
    pixels, mask = dataset.read_pair(sample)
    np.testing.assert_array_equal(pixels, picture(seed=0))
    np.testing.assert_array_equal(mask, read(loop.images.read_mask(ids[0])))
    bmp = next(sample for sample in dataset.split("unlabelled") if sample.name == ids[-1])
    np.testing.assert_array_equal(dataset.read(bmp), picture(seed=9))
    # The data set links to the files of the pool.
    assert sample.image.samefile(blob_file(loop, "images", ids[0]))


def test_finished_data_set_is_complete_after_a_power_cut(loop: State, tmp_path: Path) -> None:
    fill(loop, val=1)
    loop.images.add(encoded(picture(seed=9), "BMP"))
    run = start(loop)
    with crash_disk(tmp_path / "disk", 40) as disk:
        folder = disk.folder / "set"
        write_dataset(loop, run.id, folder)
        written = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        assert Counter(path.parent.name for path in written) == {"set": 1, "images": 7, "masks": 3, "splits": 4}
        disk.shut_down()
        disk.mount_again()
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == written


def test_lost_file_of_the_snapshot_is_named(loop: State, tmp_path: Path) -> None:
    ids = fill(loop, val=1)
    blob_file(loop, "images", ids[0]).unlink()
    with pytest.raises(FileLost, match=ids[0]):
        write_dataset(loop, start(loop).id, tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_label_changed_after_the_snapshot_is_the_old_one_in_the_data_set(loop: State, tmp_path: Path) -> None:
    ids = fill(loop, val=1)
    run = start(loop)
    masks = {image_id: loop.images.read_mask(image_id) for image_id in ids[:3]}
    write_dataset(loop, run.id, tmp_path / "first")
    for image_id in ids[:4]:
        loop.images.put_mask(image_id, OTHER_MASK, classes=TINY)
    sizes = write_dataset(loop, run.id, tmp_path / "second")
    assert sizes == Sizes(labelled=2, unlabelled=3, val=1)
    for image_id, mask in masks.items():
        assert (tmp_path / "second" / "masks" / f"{image_id}.png").read_bytes() == mask
        recorded = {label.image_id: label.mask_sha256 for label in loop.runs.labels(run.id)}
    assert set(recorded) == set(masks)
    assert not set(recorded.values()) & {image.mask_sha256 for image in loop.images.page(which="labelled").images}


def test_image_deleted_after_the_snapshot_is_not_in_the_data_set(loop: State, tmp_path: Path) -> None:
    ids = fill(loop, labelled=3, val=2)
    run = start(loop)
    write_dataset(loop, run.id, tmp_path / "first")
    for gone in (ids[0], ids[3], ids[5]):
        loop.images.delete(gone)
    assert write_dataset(loop, run.id, tmp_path / "second") == Sizes(labelled=2, unlabelled=2, val=1)
    assert (
        not set(ids)
        - {ids[0], ids[3], ids[5]}
        - set().union(*(names(tmp_path / "second", role) for role in ("labelled", "unlabelled", "val")))
    )


def test_images_are_listed_in_chunks(loop: State) -> None:
    ids = fill(loop, val=1, unlabelled=7)
    run = start(loop)
    with loop.database.write() as session:
        session.get_one(Run, run.id).image_sequence = 9
    found, after = [], 0
    while chunk := loop.runs.unlabelled(run.id, after, limit=2):
        assert len(chunk) <= 2
        found += [image.image_id for image in chunk]
        after = chunk[-1].sequence
    # No label was recorded, and the last image came after the snapshot.
    assert found == ids[:9]


def test_floats_are_read_by_the_range_of_each_model(loop: State, tmp_path: Path) -> None:
    values = np.array([[0, 4000], [100, 3900]], np.float32)
    image_id = loop.images.add(encoded(values, "TIFF"), value_range=(0.0, 4000.0))[0].id
    mask = encoded(np.array([[3, 4], [3, 4]], np.uint8))
    loop.images.put_mask(image_id, mask, classes=TINY, split="val", group="film")
    fill(loop, val=0)
    run = start(loop)
    write_dataset(loop, run.id, tmp_path / "set")
    files = validation_files(tmp_path / "set", loop.runs.labels(run.id))
    (sample,) = read_samples(files, TINY, {(0.0, 4000.0), (0.0, 8000.0)}, loop.limits)
    assert sample.group == "film"
    assert sample.pixels[0.0, 8000.0][..., 0].tolist() == [[0, 127], [3, 124]]
    image_HW3 = sample.pixels[0.0, 4000.0]
    assert image_HW3[..., 0].tolist() == [[0, 255], [6, 249]]
    assert nearest(image_HW3, COLORS).tolist() == [[3, 4], [3, 4]]


def test_image_that_is_deleted_and_added_again_during_a_run_has_no_label(loop: State, tmp_path: Path) -> None:
    ids = fill(loop, labelled=3, val=1, unlabelled=0)
    run = start(loop)
    lease = claim(loop.database, run.id)
    assert lease is not None
    take_snapshot(lease)
    lease.release()
    data = loop.images.read(ids[0])
    loop.images.delete(ids[0])
    loop.images.add(data)
    assert write_dataset(loop, run.id, tmp_path / "set") == Sizes(labelled=2, unlabelled=0, val=1)
