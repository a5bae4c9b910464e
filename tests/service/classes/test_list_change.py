"""From one version of the class list to the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from service.classes.class_list import ClassHistory, ClassList
from service.classes.list_change import NextVersion, WantedClass, WantedList, first_version, next_version
from service.errors import ClassesInvalid
from tests.service.class_lists import list_of

STREET = list_of(["building", "car", "truck", "sky"], [(1, 0, 0), (2, 0, 0), (3, 0, 0), (4, 0, 0)])


def change(
    classes: Sequence[WantedClass | str], *lists: ClassList, ended: dict[int, int] | None = None, **fates: Any
) -> NextVersion:
    """Derive the next version from the last of some lists; `ended` are the classes that were merged before."""
    wanted = [WantedClass(name=each) if isinstance(each, str) else each for each in classes]
    return next_version(WantedList(classes=wanted, **fates), ClassHistory(lists or (STREET,), ended or {}))


def test_classes_are_renamed_merged_retired_and_added() -> None:
    made = change(
        ["vehicle", "tree", "house"],
        renamed={"building": "house"},
        merged={"car": "vehicle", "truck": "vehicle"},
        retired=["sky"],
    )
    assert made.classes.version == 2
    assert [(each.identity, each.name) for each in made.classes.classes] == [(5, "vehicle"), (6, "tree"), (1, "house")]
    assert made.merged == {2: 5, 3: 5}
    changes = made.changes
    assert (changes.renamed, changes.added, changes.recoloured) == ({"building": "house"}, ["vehicle", "tree"], [])
    assert (changes.merged, changes.retired) == ({"car": "vehicle", "truck": "vehicle"}, ["sky"])


def test_kept_classes_keep_their_colours_and_new_ones_get_others() -> None:
    red = WantedClass(name="car", color=(128, 0, 0))
    made = change(["building", red, "truck", "sky", "tree", "road"])
    colors = [each.color for each in made.classes.classes]
    # (128, 0, 0) is the first colour of the palette.
    assert colors == [(1, 0, 0), (128, 0, 0), (3, 0, 0), (4, 0, 0), (0, 128, 0), (128, 128, 0)]
    assert made.changes.recoloured == ["car"]


def test_identity_says_which_class_it_is_whatever_its_name() -> None:
    swapped = [WantedClass(name="truck", identity=2), WantedClass(name="car", identity=3)]
    for made in (
        change(["building", *swapped, "sky"]),
        change(["building", "truck", "car", "sky"], renamed={"car": "truck", "truck": "car"}),
    ):
        assert [each.identity for each in made.classes.classes] == [1, 2, 3, 4]
        assert made.changes.renamed == {"car": "truck", "truck": "car"}


def test_retired_class_comes_back_with_its_identity_only() -> None:
    second = change(["building", "car", "truck"], retired=["sky"]).classes
    other = change(["building", "car", "truck", "sky"], STREET, second)
    assert (other.classes.classes[3].identity, other.changes.added) == (5, ["sky"])
    back = change(["building", "car", "truck", WantedClass(name="heaven", identity=4)], STREET, second)
    assert (back.changes.restored, back.changes.added) == (["heaven"], [])
    with pytest.raises(ClassesInvalid, match="no class of the present list has"):
        change(["building", "car", "truck", WantedClass(name="x", identity=4)], STREET, second, ended={4: 1})


def test_all_unicode_forms_of_a_name_are_one_name() -> None:
    first = first_version(WantedList(classes=[WantedClass(name="Ba\u0308ume"), WantedClass(name="Weg")]))
    assert first.classes.names == ["B\u00e4ume", "Weg"]
    assert change(["Weg", "Ba\u0308ume"], first.classes).changes.added == []


@pytest.mark.parametrize(
    ("classes", "fates", "message"),
    [
        (["car", "truck", "sky"], {}, 'lacks \'building\'.*"renamed".*"merged".*"retired"'),
        (["car", "truck", "sky"], {"renamed": {"building": "house"}}, "lacks 'house', which `renamed` or `merged`"),
        (
            ["car", "truck", "sky"],
            {"retired": ["house", "building"]},
            "which lacks 'house': use some of 'buil",
        ),
        (["building", "car", "truck", "sky"], {"retired": ["sky"]}, "'sky' is merged or retired, and in the list"),
        (["building", "truck", "sky"], {"renamed": {"car": "truck"}}, "Several classes would be 'truck'.*`merged`"),
        (["a", "truck", "sky"], {"renamed": {"car": "a", "building": "a"}}, "Several classes would be 'a'"),
        (
            ["building", "truck", "sky"],
            {"merged": {"car": "truck"}, "retired": ["car"]},
            "The class 'car' has several fates",
        ),
        (["building", "car", "truck", "sky", "car"], {}, "Several classes have the name 'car'"),
        (["building", "car", "truck", "sky", ""], {}, "'' is no usable name: write 1 to 64 characters"),
        (["building", "car", "truck", "sky", "x" * 65], {}, "is no usable name"),
        (["building", "car", "truck", "sky", "a\x00b"], {}, "without control characters"),
        (["building", "car", "truck", "sky", " road"], {}, "without spaces around"),
        (
            ["building", "car", "truck", "sky", WantedClass(name="tree", color=(4, 0, 0))],
            {},
            r"The classes 'sky' and 'tree' have one colour, \[4, 0, 0\]",
        ),
        (["building", "car", "truck", "sky", WantedClass(name="bus", identity=2)], {}, "'car' and 'bus' are one class"),
        (["building", "car", "truck", "sky", WantedClass(name="bus", identity=9)], {}, "has the identity 9"),
        ([], {}, "The list has 0 classes"),
    ],
)
def test_list_that_leaves_something_open_is_an_error_with_the_remedy(
    classes: list[WantedClass | str], fates: dict[str, Any], message: str
) -> None:
    with pytest.raises(ClassesInvalid, match=message):
        change(classes, **fates)


def test_colours_and_names_with_which_a_model_came_are_accepted() -> None:
    given = list_of(["n" * 200, "b", "c"], [(9, 9, 9), (9, 9, 9), (1, 1, 1)])
    assert change(["n" * 200, "b", "c", "d"], given).changes.added == ["d"]
    with pytest.raises(ClassesInvalid, match="have one colour"):
        change(["n" * 200, "b", WantedClass(name="c", color=(9, 9, 9))], given)


def test_ignored_value_makes_way_for_many_classes() -> None:
    names = [f"class {number}" for number in range(300)]
    assert (
        first_version(WantedList(classes=[WantedClass(name=name) for name in names[:255]])).classes.ignore_index == 255
    )
    made = change(names, list_of(names[:255]))
    assert (made.classes.ignore_index, len({each.color for each in made.classes.classes})) == (65_535, 300)
