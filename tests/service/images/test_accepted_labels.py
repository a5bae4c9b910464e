"""Predictions as labels: which pixels become one, and in which split."""

from __future__ import annotations

import numpy as np
import pytest

from service.errors import ImageNotFound, LabelExists, LabelNotDrawn, MaskInvalid
from service.images.accepted_labels import label_of
from service.images.duplicate_clusters import join_cluster
from service.segmentation.inference.predictor import Prediction
from service.state import State
from service.storage.tables import Image
from tests.service.class_lists import TINY, list_of
from tests.service.images.test_image_store import MASK, add

PREDICTION = Prediction(np.array([[0, 1, 2, 3]], np.uint8), np.array([[255, 51, 50, 0]], np.uint8))
IDS = np.ones((30, 40), np.uint8)
VERSION = "20260101T000000-aaaaaaaa"


def accept(state: State, image_id: str, split: str | None = None, *, replace: bool = False) -> Image:
    return state.images.put_label(
        image_id,
        IDS,
        classes=TINY,
        split=split,  # type: ignore[arg-type]  # of the test's parameters
        accepted_from=VERSION,
        replace=replace,
    )


def test_ids_are_translated_and_unsure_or_unlisted_pixels_ignored() -> None:
    label = label_of(PREDICTION, [4, None, 1, 1], TINY, min_confidence=0.0)
    assert label.ids_HW.tolist() == [[4, 255, 1, 1]]
    assert label.ids_HW.dtype == np.uint8
    assert (label.below_confidence, label.without_class) == (0, 1)
    label = label_of(PREDICTION, [4, 0, 1, 1], TINY, min_confidence=0.2)
    assert label.ids_HW.tolist() == [[4, 0, 255, 255]]
    assert (label.below_confidence, label.without_class) == (2, 0)


def test_ids_above_255_have_16_bits() -> None:
    wide = list_of([*map(str, range(300))], ignore_index=65_535)
    assert label_of(PREDICTION, [299, 1, 2, 3], wide).ids_HW.tolist() == [[299, 1, 2, 3]]


def test_prediction_without_a_usable_pixel_is_refused() -> None:
    with pytest.raises(MaskInvalid, match=r"3 are less confident than min_confidence=0.5, and 1 have classes"):
        label_of(PREDICTION, [None, 1, 2, 3], TINY, min_confidence=0.5)


def test_accepted_labels_train_and_are_counted(state: State) -> None:
    first, second = add(state, 0), add(state, 1)
    assert [accept(state, each).split for each in (first, second)] == ["labelled", "labelled"]
    assert state.images.get(first).accepted_from == VERSION
    counts = state.images.counts()
    assert (counts.labelled, counts.accepted, counts.unlabelled) == (2, 2, 0)
    # Drawn, it is accepted no more.
    assert state.images.put_mask(first, MASK, classes=TINY).accepted_from is None
    state.images.delete(second)
    assert state.images.counts().accepted == 0


def test_accepted_labels_do_not_shift_drawn_ones_to_val(state: State) -> None:
    for seed in range(5):
        accept(state, add(state, seed))
    drawn = [state.images.put_mask(add(state, seed), MASK, classes=TINY).split for seed in range(5, 10)]
    assert drawn == ["labelled"] * 4 + ["val"]


def test_drawn_label_is_replaced_only_on_request(state: State) -> None:
    image_id = add(state)
    state.images.put_mask(image_id, MASK, classes=TINY)
    with pytest.raises(LabelExists, match=r"a person drew.*\?replace=true"):
        accept(state, image_id)
    assert accept(state, image_id, replace=True).accepted_from == VERSION
    assert accept(state, image_id).accepted_from == VERSION


def test_accepted_label_never_goes_to_val(state: State) -> None:
    image_id, other = add(state, 0), add(state, 1)
    state.images.put_mask(image_id, MASK, classes=TINY, split="val")
    with pytest.raises(LabelNotDrawn, match=r"compared with its own prediction.*\?split=labelled"):
        accept(state, image_id, replace=True)
    with state.database.write() as session:
        join_cluster(session, session.get_one(Image, other), session.get_one(Image, image_id))
    for split in ("val", None):
        with pytest.raises(LabelNotDrawn):
            accept(state, other, split)
    assert accept(state, image_id, "labelled", replace=True).split == "labelled"
    assert state.images.counts().val == 0


def test_image_deleted_while_it_was_segmented_gets_no_label(state: State) -> None:
    image_id = add(state)
    state.images.delete(image_id)
    with pytest.raises(ImageNotFound):
        accept(state, image_id)
    assert state.images.counts().accepted == 0
