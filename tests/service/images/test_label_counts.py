"""Counts of labelled pixels by class, kept with each change of a label."""

from __future__ import annotations

import numpy as np
import pytest
from sqlalchemy import delete, update

from service.classes.class_list import ClassHistory
from service.classes.label_counts import CountedClass, Labelled, count_uncounted, read_labelled
from service.state import State
from service.storage.tables import Image, LabelCount, Split
from tests.service.class_lists import TINY, list_of
from tests.service.conftest import encoded
from tests.service.tiny_bundle import picture

HISTORY = ClassHistory((TINY,), {})
MASK = np.repeat(np.array([0, 1, 255], np.uint8), 400).reshape(30, 40)


def counts(state: State, split: Split | None = None, history: ClassHistory = HISTORY) -> Labelled:
    with state.database.read() as session:
        return read_labelled(session, history, split)


@pytest.fixture
def ids(state: State) -> list[str]:
    ids = [state.images.add(encoded(picture(seed=seed)))[0].id for seed in range(2)]
    for image_id, split in zip(ids, ("labelled", "val"), strict=True):
        state.images.put_mask(image_id, encoded(MASK), classes=TINY, split=split)  # type: ignore[arg-type]  # of a tuple
    return ids


def test_replaced_moved_and_deleted_labels_are_counted_once(state: State, ids: list[str]) -> None:
    assert counts(state) == Labelled({0: 2, 1: 2, 2: 0, 3: 0, 4: 0}, {0: 800, 1: 800, 2: 0, 3: 0, 4: 0}, set_aside=())
    state.images.put_mask(ids[0], encoded(np.full((30, 40), 4, np.uint8)), classes=TINY, split="val")
    assert counts(state, "labelled").labels[0] == 0
    assert (counts(state, "val").labels[0], counts(state, "val").pixels[4]) == (1, 1200)
    for image_id in ids:
        state.images.delete(image_id)
    assert set(counts(state).pixels.values()) == {0}
    with state.database.read() as session:
        assert session.query(LabelCount).count() == 0


def test_labels_of_a_former_version_are_counted_later(state: State, ids: list[str]) -> None:
    expected = counts(state)
    with state.database.write() as session:
        session.execute(update(Image).values(class_pixels=None))
        session.execute(delete(LabelCount))
    assert counts(state).labels[0] == 0
    for remaining in (2, 1, 0):
        with state.database.read() as session:
            assert count_uncounted(session) == remaining
        state.images.count_labels(255, limit=1)
    assert counts(state) == expected


def test_ids_that_are_no_class_are_set_aside(state: State) -> None:
    image_id = state.images.add(encoded(picture()))[0].id
    state.images.put_mask(image_id, encoded(MASK), classes=TINY, partial=True)
    # Of a label that is older than the list: another model was active when it was drawn.
    shorter = ClassHistory((list_of(["red"]),), {})
    found = counts(state, history=shorter)
    assert (found.pixels, found.set_aside) == ({0: 400}, (CountedClass(1, None, "id 1", 1, 400),))
