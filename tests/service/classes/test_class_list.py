"""What becomes of labels and of models' classes under later versions of the class list."""

from __future__ import annotations

import numpy as np
import pytest

from service.classes.class_list import ClassHistory, ClassList
from service.classes.list_change import WantedClass, WantedList, next_version
from service.errors import ClassesNotFound
from tests.service.class_lists import list_of

MASK = np.array([[0, 1, 2], [3, 255, 7]], np.uint8)


@pytest.fixture
def history() -> ClassHistory:
    """building, car, truck, sky; then house, vehicle (car and truck); then vehicle is called "car", with trees."""
    first = list_of(["building", "car", "truck", "sky"])
    second = WantedList(
        classes=[WantedClass(name="vehicle"), WantedClass(name="house")],
        renamed={"building": "house"},
        merged={"car": "vehicle", "truck": "vehicle"},
        retired=["sky"],
    )
    third = WantedList(
        classes=[WantedClass(name="house"), WantedClass(name="tree"), WantedClass(name="car")],
        renamed={"vehicle": "car"},
    )
    history = ClassHistory((first,), {})
    for wanted in (second, third):
        made = next_version(wanted, history)
        history = ClassHistory((*history.lists, made.classes), {**history.merged, **made.merged})
    return history


def test_labels_follow_their_classes(history: ClassHistory) -> None:
    """Retired classes, and ids that were none, are ignored; no pixel becomes another class."""
    np.testing.assert_array_equal(history.translate(MASK, 1, history.version(2)), [[1, 0, 0], [255, 255, 255]])
    np.testing.assert_array_equal(history.translate(MASK, 1, history.present), [[0, 2, 2], [255, 255, 255]])
    np.testing.assert_array_equal(history.translate(MASK, 2, history.present), [[2, 0, 255], [255, 255, 255]])
    assert history.translate(MASK, 1, history.present).dtype == np.uint8


def test_translated_masks_have_sixteen_bits_if_an_id_needs_them() -> None:
    first = list_of([str(number) for number in range(5)])
    many = list_of([str(number) for number in range(300)])
    backwards = ClassList(2, many.classes[::-1], 65_535)
    found = ClassHistory((first, backwards), {}).translate(np.array([[0, 4, 255]], np.uint8), 1, backwards)
    assert found.tolist() == [[299, 295, 65_535]]
    assert found.dtype == np.uint16


def test_masks_need_no_translation_if_their_ids_stay(history: ClassHistory) -> None:
    assert history.keeps_ids(2, history.version(2))
    assert not history.keeps_ids(1, history.version(2))
    # Classes were added after the last one of a version that this service wrote.
    longer = ClassList(3, (*history.version(2).classes, history.present.classes[1]), 255)
    assert history.keeps_ids(2, longer)
    # Labels of the first list may be older than it, with ids that it lacks.
    first = history.version(1)
    assert not history.keeps_ids(1, ClassList(2, (*first.classes, history.present.classes[1]), 255))


def test_models_are_known_by_the_names_of_the_list_with_which_they_came(history: ClassHistory) -> None:
    names = ["car", "sky", "tree", "unknown"]
    assert [history.find_id(i, history.present) for i in history.identify(names, 1)] == [2, None, 1, None]
    # The vehicle that is called "car" now is another class than the car of the first list, which is a part of it.
    assert history.identify(["car"], 3) != history.identify(["car"], 1)
    assert history.identify(["car"], None) == history.identify(["car"], 3)


def test_unknown_version_is_an_error(history: ClassHistory) -> None:
    with pytest.raises(ClassesNotFound, match="no version 9 of the class list: the present one is 3"):
        history.existing(9)
