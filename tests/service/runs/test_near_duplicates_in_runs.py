"""Near-duplicates count once, and never straddle training and validation."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from service.curation.perceptual_hash import perceptual_hash
from service.runs.policy.triggers import new_images
from service.runs.worker.snapshot import Sizes, names, validation_files
from service.state import State
from service.storage.tables import Image, Split
from tests.service.class_lists import TINY
from tests.service.conftest import encoded, read
from tests.service.runs.conftest import fill, finished_run, register_worker, write_dataset
from tests.service.tiny_bundle import COLORS, nearest, picture


def mark(state: State, image_id: str, leader: str) -> None:
    with state.database.write() as session:
        session.get_one(Image, image_id).duplicate_of = leader


def add(state: State, seed: int) -> str:
    return state.images.add(encoded(picture(seed=1000 + seed)))[0].id


def label(state: State, image_id: str, seed: int, split: Split | None = None) -> Split | None:
    mask = encoded(nearest(picture(seed=1000 + seed), COLORS))
    return state.images.put_mask(image_id, mask, classes=TINY, split=split).split


def new(state: State) -> int:
    with state.database.read() as session:
        return new_images(session, 100)


def test_near_duplicates_count_once_towards_the_next_run(loop: State) -> None:
    ids = [add(loop, seed) for seed in range(4)]
    mark(loop, ids[2], ids[1])
    mark(loop, ids[3], ids[1])
    assert new(loop) == 2
    loop.images.delete(ids[1])
    assert new(loop) == 2, "the cluster has a new leader"
    assert loop.images.get(ids[2]).duplicate_of is None
    assert loop.images.get(ids[3]).duplicate_of == ids[2]


def test_near_duplicates_of_validation_images_are_in_no_training_split(loop: State, tmp_path: Path) -> None:
    ids = fill(loop, labelled=3, val=2, unlabelled=4)
    labelled, val, unlabelled = ids[:3], ids[3:5], ids[5:]
    mark(loop, unlabelled[0], val[0])
    mark(loop, unlabelled[1], labelled[0])
    mark(loop, labelled[1], val[1])
    # Two unlabelled images of one cluster: without a validation image, both may train.
    mark(loop, unlabelled[3], unlabelled[2])
    register_worker(loop)
    run = loop.retrain_policy.start("manual")
    write_dataset(loop, run.id, tmp_path / "set")
    assert set(names(tmp_path / "set", "labelled")) == {labelled[0], labelled[2]}
    assert set(names(tmp_path / "set", "val")) == set(val)
    assert set(names(tmp_path / "set", "unlabelled")) == set(unlabelled[1:])


def test_cluster_led_by_an_unlabelled_image_follows_its_validation_image(loop: State, tmp_path: Path) -> None:
    first, second, third = (add(loop, seed) for seed in range(3))
    ids = fill(loop, labelled=2, val=1, unlabelled=0)
    label(loop, second, 1, "val")
    mark(loop, second, first)
    mark(loop, third, first)
    register_worker(loop)
    run = loop.retrain_policy.start("manual")
    write_dataset(loop, run.id, tmp_path / "set")
    assert names(tmp_path / "set", "unlabelled") == []
    assert set(names(tmp_path / "set", "val")) == {second, ids[2]}


def test_near_duplicate_in_another_cluster_is_left_out_too(loop: State, tmp_path: Path) -> None:
    ids = fill(loop, labelled=3, val=2, unlabelled=4)
    labelled, val, unlabelled = ids[:3], ids[3:5], ids[5:]
    # No marks, but hashes that differ in 6 and 7 bits of 64, and one of an image that is not analysed.
    hashes = {val[0]: 2**40 - 1, labelled[1]: 2**40 - 1 - 63, unlabelled[0]: 2**40 - 1 - 63, unlabelled[1]: 2**33 - 1}
    sequences = [loop.images.get(image_id).sequence for image_id in hashes]
    loop.vectors.hashes().write(sequences, np.array(list(hashes.values()), np.uint64)[:, None])
    register_worker(loop)
    run = loop.retrain_policy.start("manual")
    write_dataset(loop, run.id, tmp_path / "set")
    assert set(names(tmp_path / "set", "labelled")) == {labelled[0], labelled[2]}
    assert set(names(tmp_path / "set", "val")) == set(val)
    assert set(names(tmp_path / "set", "unlabelled")) == set(unlabelled[1:])


def test_near_duplicates_that_are_not_analysed_yet_are_left_out(loop: State, tmp_path: Path) -> None:
    ids = fill(loop, labelled=3, val=2, unlabelled=2)
    first = picture(96, 72, seed=1)
    earlier = loop.images.add(encoded(first, "JPEG", quality=70))[0].id
    val = loop.images.add(encoded(first))[0].id
    later = loop.images.add(encoded(np.clip(first * 1.1, 0, 255).astype(np.uint8)))[0].id
    splits: dict[str, Split] = {val: "val", later: "labelled"}
    for image_id, split in splits.items():
        mask = encoded(nearest(first, COLORS))
        loop.images.put_mask(image_id, mask, classes=TINY, split=split)
    # One of them is analysed.
    sequence = loop.images.get(earlier).sequence
    loop.vectors.hashes().write([sequence], np.array([[perceptual_hash(read(loop.images.read(earlier)))]], np.uint64))
    register_worker(loop)
    run = loop.retrain_policy.start("manual")
    sizes = write_dataset(loop, run.id, tmp_path / "set")
    assert sizes == Sizes(labelled=3, unlabelled=2, val=3, left_out=2)
    assert set(names(tmp_path / "set", "left_out")) == {earlier, later}
    assert set(names(tmp_path / "set", "labelled")) == set(ids[:3])


def test_run_tells_how_many_images_it_left_out(loop: State) -> None:
    ids = fill(loop, labelled=3, val=2, unlabelled=4)
    mark(loop, ids[0], ids[3])
    mark(loop, ids[-1], ids[3])
    run = finished_run(loop)
    (event,) = [row.event for row in loop.runs.events(run) if row.event["event"] == "dataset"]
    assert event["images"] == {"labelled": 2, "unlabelled": 3, "val": 2, "left_out": 2}


def test_new_label_follows_the_split_of_its_cluster(loop: State) -> None:
    fill(loop, labelled=1, val=5, unlabelled=0)
    ids = [add(loop, seed) for seed in range(4)]
    for image_id in ids[1:]:
        mark(loop, image_id, ids[0])
    assert label(loop, ids[2], 2) == "labelled", "the first label of the cluster"
    assert label(loop, ids[0], 0, "val") == "val", "as requested"
    assert label(loop, ids[3], 3) == "val"
    assert label(loop, ids[2], 2) == "labelled", "a labelled image keeps its split"


def test_gate_counts_near_duplicates_as_one_unit_unless_groups_are_given(loop: State, tmp_path: Path) -> None:
    val = fill(loop, labelled=2, val=4, unlabelled=0)[2:]
    mark(loop, val[1], val[0])
    with loop.database.write() as session:
        for image_id in val[2:]:
            session.get_one(Image, image_id).group_name = "video"
    mark(loop, val[3], val[0])
    register_worker(loop)
    run = loop.retrain_policy.start("manual")
    write_dataset(loop, run.id, tmp_path / "set")
    files = validation_files(tmp_path / "set", loop.runs.labels(run.id))
    groups = {file.image.stem: file.group for file in files}
    assert groups == {val[0]: val[0], val[1]: val[0], val[2]: "video", val[3]: "video"}
