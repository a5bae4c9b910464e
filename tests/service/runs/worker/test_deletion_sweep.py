"""Deletion reaches every copy: pool, snapshots, past labels, reports."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from service.runs.worker.deletion_sweep import sweep_deletions
from service.state import State
from service.storage.tables import Model, Run, RunStatus
from tests.service.class_lists import TINY
from tests.service.conftest import encoded
from tests.service.runs.conftest import BAD, fill, register_worker, write_dataset
from tests.service.tiny_bundle import picture

OTHER_MASK = encoded(np.full((30, 40), 2, np.uint8))
PICTURE = b"data:image/jpeg;base64,/9j/4AAQSkZJRg=="


def start(loop: State) -> Run:
    register_worker(loop)
    return loop.retrain_policy.start("manual")


def folder(loop: State, run: Run) -> Path:
    return loop.settings.data_dir / "runs" / run.id


def end(loop: State, run: Run, status: RunStatus) -> None:
    with loop.database.write() as session:
        session.get_one(Run, run.id).status = status


def sweep(loop: State) -> int:
    return sweep_deletions(loop.database, loop.images, loop.settings.data_dir / "runs")


def files(root: Path) -> set[str]:
    return {path.name.partition(".")[0] for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("status", ["failed", "cancelled", "judged"])
@pytest.mark.usefixtures("on_files")
def test_nothing_of_a_deleted_image_is_left_after_its_run(loop: State, status: RunStatus) -> None:
    ids = fill(loop, val=1)
    run = start(loop)
    write_dataset(loop, run.id, folder(loop, run) / "dataset")
    old = loop.images.get(ids[0]).mask_sha256
    loop.images.put_mask(ids[0], OTHER_MASK, classes=TINY)
    new = loop.images.get(ids[0]).mask_sha256
    loop.images.delete(ids[0])
    assert sweep(loop) == 0, "the run may read its copy"
    end(loop, run, status)
    assert sweep(loop) == 1
    assert sweep(loop) == 0
    assert not {ids[0], old, new} & files(loop.settings.data_dir)
    assert {*ids[1:]} <= files(loop.settings.data_dir)


def test_sweep_completes_more_than_a_batch(loop: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.runs.worker.deletion_sweep.BATCH", 2)
    for image_id in fill(loop, labelled=0, val=0, unlabelled=5):
        loop.images.delete(image_id)
    assert sweep(loop) == 5
    assert sweep(loop) == 0


def test_deletions_that_a_run_delays_do_not_delay_later_ones(loop: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.runs.worker.deletion_sweep.BATCH", 1)
    ids = fill(loop, val=1)
    run = start(loop)
    write_dataset(loop, run.id, folder(loop, run) / "dataset")
    (later,) = fill(loop, labelled=0, val=0, unlabelled=1, seed=1)
    loop.images.delete(ids[0])
    loop.images.delete(later)
    assert sweep(loop) == 1


def test_run_that_has_no_snapshot_yet_does_not_delay_a_deletion(loop: State) -> None:
    ids = fill(loop, val=1)
    start(loop)
    loop.images.delete(ids[0])
    assert sweep(loop) == 1


def test_pictures_of_a_deleted_label_are_removed_from_reports(loop: State) -> None:
    ids = fill(loop, val=1)
    run = start(loop)
    write_dataset(loop, run.id, folder(loop, run) / "dataset")
    end(loop, run, "judged")
    report = folder(loop, run) / "train" / "report.html"
    report.parent.mkdir()
    report.write_bytes(b'<img alt="image" src="' + PICTURE + b'"> mIoU 0.5')
    loop.images.delete(ids[-1])
    sweep(loop)
    assert PICTURE in report.read_bytes(), "an unlabelled image is in no report"
    loop.images.delete(ids[2])
    sweep(loop)
    assert report.read_bytes() == b'<img alt="image" src="data:,"> mIoU 0.5'


def test_embedding_that_outlived_a_deletion_is_erased(loop: State) -> None:
    image = loop.images.add(encoded(picture()))[0]
    loop.images.delete(image.id)
    # As if the process had been killed between the transaction and the file.
    files = [loop.vectors.embeddings(BAD, 3), loop.vectors.hashes()]
    for file in files:
        file.write([image.sequence, 9], np.ones((2, file.width)))
    assert sweep(loop) == 1
    assert [file.read([image.sequence, 9]).any(axis=1).tolist() for file in files] == [[False, True]] * 2


def test_output_of_a_run_that_its_worker_did_not_end_is_kept_as_train(loop: State) -> None:
    fill(loop)
    run = start(loop)
    for fence in (1, 2):
        report = folder(loop, run) / f"attempt-{fence}" / "train" / "report.html"
        report.parent.mkdir(parents=True)
        report.write_text(str(fence))
    sweep(loop)
    assert report.exists(), "the run is active"
    end(loop, run, "failed")
    sweep(loop)
    assert [entry.name for entry in folder(loop, run).iterdir()] == ["train"]
    assert (folder(loop, run) / "train" / "report.html").read_text() == "2"


def test_image_that_was_added_again_keeps_its_file(loop: State) -> None:
    data = encoded(picture())
    image_id = loop.images.add(data)[0].id
    loop.images.delete(image_id)
    loop.images.add(data)
    assert sweep(loop) == 1
    assert loop.images.read(image_id) == data


@pytest.mark.usefixtures("on_files")
def test_past_label_is_kept_for_its_run_until_the_image_is_deleted(loop: State) -> None:
    ids = fill(loop, val=1)
    run = start(loop)
    write_dataset(loop, run.id, folder(loop, run) / "dataset")
    end(loop, run, "judged")
    old = loop.images.get(ids[0]).mask_sha256
    loop.images.put_mask(ids[0], OTHER_MASK, classes=TINY)
    assert old in files(loop.settings.data_dir / "blobs" / "masks")
    loop.images.delete(ids[0])
    sweep(loop)
    assert old not in files(loop.settings.data_dir / "blobs" / "masks")


def test_deletion_names_the_models_that_were_trained_with_the_image(loop: State) -> None:
    ids = fill(loop, val=1)
    run = start(loop)
    write_dataset(loop, run.id, folder(loop, run) / "dataset")
    late = loop.images.add(encoded(picture(seed=50)))[0].id
    with loop.database.write() as session:
        session.add(Model(version="m1", name="n", path="p", state="ready", run_id=run.id, parent=BAD))
    assert list(loop.runs.models_with_image(loop.images.delete(ids[4]).sequence)) == ["m1"]
    assert list(loop.runs.models_with_image(loop.images.delete(late).sequence)) == []
