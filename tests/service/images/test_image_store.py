"""Image pool, with a real database and real files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Connection, event, update

from service.errors import BadInput, FileLost, ImageNotFound, ImageUnreadable, MaskInvalid
from service.state import State
from service.storage.tables import Image, Pool, Split
from tests.service.class_lists import TINY
from tests.service.conftest import blob_file, encoded, read
from tests.service.tiny_bundle import picture

MASK = encoded(np.ones((30, 40), np.uint8))


def add(state: State, seed: int = 0) -> str:
    return state.images.add(encoded(picture(seed=seed)))[0].id


def label(state: State, image_id: str, split: Split | None = None) -> Split | None:
    return state.images.put_mask(image_id, MASK, classes=TINY, split=split).split


def image_files(state: State, image_id: str) -> list[Path]:
    image = state.images.get(image_id)
    return [blob_file(state, "images", image_id), blob_file(state, "masks", image.mask_sha256)]


def test_id_is_the_sha256_and_a_second_upload_changes_nothing(state: State) -> None:
    data = encoded(picture())
    row, new = state.images.add(data)
    assert new
    assert row.id == hashlib.sha256(data).hexdigest()
    assert (row.media_type, row.width, row.height, row.bytes) == ("image/png", 40, 30, len(data))
    again, new = state.images.add(data)
    assert not new
    assert again.id == row.id
    assert state.images.read(row.id) == data
    assert state.images.counts().unlabelled == 1


def test_image_that_does_not_decode_is_not_stored(state: State) -> None:
    with pytest.raises(ImageUnreadable):
        state.images.add(encoded(picture())[:-200])
    assert state.images.counts().unlabelled == 0


def test_concurrent_uploads_of_one_image_store_it_once(state: State) -> None:
    data = encoded(picture())
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: state.images.add(data)[1], range(16)))
    assert sum(results) == 1


def test_pages_list_every_image_once_newest_first(state: State) -> None:
    ids = [add(state, seed) for seed in range(7)]
    listed, cursor = [], None
    while True:
        page = state.images.page(limit=3, cursor=cursor)
        listed += [image.id for image in page.images]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert listed == ids[::-1]


def test_pages_can_be_filtered(state: State) -> None:
    first, second = add(state, 0), add(state, 1)
    label(state, first)
    assert [i.id for i in state.images.page(which="labelled").images] == [first]
    assert [i.id for i in state.images.page(which="unlabelled").images] == [second]


@pytest.mark.parametrize("cursor", ["", "x", "1e999-abc", "nan-0"])
def test_invalid_cursor_is_rejected(state: State, cursor: str) -> None:
    with pytest.raises(BadInput, match="cursor"):
        state.images.page(cursor=cursor)


def test_every_fifth_label_goes_to_val(state: State) -> None:
    splits = [label(state, add(state, seed)) for seed in range(10)]
    assert splits == ["labelled"] * 4 + ["val"] + ["labelled"] * 4 + ["val"]


def test_split_can_be_set_and_stays_on_relabelling(state: State) -> None:
    image_id = add(state)
    assert label(state, image_id, "val") == "val"
    assert label(state, image_id) == "val"
    assert label(state, image_id, "labelled") == "labelled"
    assert state.images.counts().labelled == 1


def test_mask_is_stored_as_ids(state: State) -> None:
    image_id = add(state)
    label(state, image_id)
    assert (read(state.images.read_mask(image_id)) == 1).all()


def test_invalid_mask_changes_nothing(state: State) -> None:
    image_id = add(state)
    for invalid in (encoded(np.ones((40, 30), np.uint8)), encoded(np.full((30, 40), 9, np.uint8))):
        with pytest.raises(MaskInvalid):
            state.images.put_mask(image_id, invalid, classes=TINY)
    assert state.images.get(image_id).split is None
    with pytest.raises(ImageNotFound, match="has no mask"):
        state.images.read_mask(image_id)


def test_delete_removes_image_and_mask_but_not_a_mask_in_use_by_another_image(state: State) -> None:
    first, second = add(state, 0), add(state, 1)
    label(state, first)
    label(state, second)
    path = blob_file(state, "images", first)
    state.images.delete(first)
    assert not path.exists()
    assert state.images.read_mask(second)
    with pytest.raises(ImageNotFound):
        state.images.get(first)
    mask = blob_file(state, "masks", state.images.get(second).mask_sha256)
    state.images.delete(second)
    assert not mask.exists()


@pytest.mark.parametrize("change", ["delete", "relabel"])
def test_files_are_kept_if_the_commit_fails(state: State, change: str) -> None:
    image_id = add(state)
    label(state, image_id)
    files = image_files(state, image_id)

    def fails(connection: Connection) -> None:
        if connection.get_execution_options().get("maskloop_write"):
            raise OSError("no space left for the journal")

    other = encoded(np.zeros((30, 40), np.uint8))
    changes: dict[str, Callable[[], object]] = {
        "delete": lambda: state.images.delete(image_id),
        "relabel": lambda: state.images.put_mask(image_id, other, classes=TINY),
    }
    event.listen(state.database.engine, "commit", fails)
    with pytest.raises(OSError, match="journal"):
        changes[change]()
    event.remove(state.database.engine, "commit", fails)
    assert all(file.exists() for file in files)
    assert image_files(state, image_id) == files


def test_concurrent_delete_and_upload_leave_row_and_file_or_neither(state: State) -> None:
    data = encoded(picture())
    for _ in range(10):
        image_id = state.images.add(data)[0].id
        with ThreadPoolExecutor(2) as pool:
            deleted, added = pool.submit(state.images.delete, image_id), pool.submit(state.images.add, data)
            deleted.result(), added.result()
        try:
            row = state.images.get(image_id)
        except ImageNotFound:
            continue
        assert state.images.read(row.id) == data


def unlabelled_bytes(state: State) -> int:
    with state.database.read() as session:
        return session.get_one(Pool, 1).unlabelled_bytes


def test_bytes_of_unlabelled_images_are_counted(state: State) -> None:
    first, second, third = (add(state, seed) for seed in range(3))
    sizes = {each: state.images.get(each).bytes for each in (first, second, third)}
    assert unlabelled_bytes(state) == sum(sizes.values())
    for split in ("labelled", "val", "val"):
        label(state, first, split)
    assert unlabelled_bytes(state) == sizes[second] + sizes[third]
    state.images.delete(first)
    state.images.delete(second)
    assert unlabelled_bytes(state) == sizes[third]


def test_only_images_that_still_are_unlabelled_are_deleted_together(state: State) -> None:
    ids = [add(state, seed) for seed in range(3)]
    label(state, ids[1])
    deleted = state.images.delete_unlabelled([*ids, "0" * 64], "age")
    assert [(each.image_id, each.reason) for each in deleted] == [(ids[0], "age"), (ids[2], "age")]
    assert state.images.get(ids[1]).mask_sha256 is not None
    with state.database.read() as session:
        pool = session.get_one(Pool, 1)
        counts = (pool.unlabelled, pool.unlabelled_bytes, pool.deletion_sequence, pool.deleted_by_age)
    assert counts == (0, 0, 2, 2)


def test_remaining_duplicates_get_a_leader_when_several_are_deleted_together(state: State) -> None:
    leader, second, third, fourth = (add(state, seed) for seed in range(4))
    with state.database.write() as session:
        session.execute(update(Image).where(Image.id != leader).values(duplicate_of=leader))
    deleted = state.images.delete_unlabelled([leader, second], "age")
    assert [each.deletion_sequence for each in deleted] == [1, 2]
    assert state.images.get(third).duplicate_of is None
    assert state.images.get(fourth).duplicate_of == third


def test_image_is_labelled_or_deleted_but_not_both(state: State) -> None:
    for seed in range(10):
        image_id = add(state, seed)
        with ThreadPoolExecutor(2) as pool:
            labelled = pool.submit(label, state, image_id)
            deleted = pool.submit(state.images.delete_unlabelled, [image_id], "bytes").result()
            assert isinstance(labelled.exception(), ImageNotFound) == bool(deleted)


def test_lost_file_error_says_to_upload_again(state: State) -> None:
    image_id = add(state)
    label(state, image_id)
    for path in image_files(state, image_id):
        path.unlink()
    for find in (state.images.read, state.images.read_mask):
        with pytest.raises(FileLost, match=f"{image_id}.* again"):
            find(image_id)
