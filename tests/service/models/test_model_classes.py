"""The class list and the classes of models, in the stores."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.classes.list_change import WantedClass, WantedList
from service.errors import ClassesChanged, NoModel
from service.state import State
from tests.service.tiny_bundle import COLORS, NAMES, write_bundle


def wanted(*names: str, **fates: dict[str, str]) -> WantedList:
    return WantedList(classes=[WantedClass(name=name) for name in names], **fates)  # type: ignore[arg-type]  # no `retired`


def test_list_may_be_written_before_there_is_a_model(state: State, bundle: Path) -> None:
    classes = state.models.classes
    with pytest.raises(NoModel, match="PUT /v1/classes, or upload a model"):
        classes.present()
    with pytest.raises(ClassesChanged):
        classes.change(wanted("green", "cow"), 3, None)
    assert classes.change(wanted("green", "cow"), 0, "anna").version == 1
    # A model that comes later is known by its names.
    version = state.models.import_folder(bundle).version
    state.models.activate(version, "test")
    assert classes.listed(state.models.manifest(version)) == [None, 0, None, None, None]
    assert classes.lists.row(1).model is None


def test_list_is_taken_from_the_model_that_is_active_first(state: State, bundle: Path, other_bundle: Path) -> None:
    for folder in (bundle, other_bundle):
        state.models.activate(state.models.import_folder(folder).version, "test")
        assert state.models.classes.present().names == list(NAMES)
    with pytest.raises(ClassesChanged, match="the present one is 1"):
        state.models.classes.change(wanted(*NAMES), 0, None)


def test_model_keeps_its_classes_when_they_are_renamed_and_gains_those_that_are_added(
    state: State, bundle: Path, tmp_path: Path
) -> None:
    classes = state.models.classes
    state.models.activate(state.models.import_folder(bundle).version, "test")
    classes.present()
    own = [{"id": i, "name": name, "color": [i, i, i]} for i, name in enumerate(("tree", "red", "rose"))]
    folder = write_bundle(tmp_path / "own", version="own", colors=COLORS[:3], classes=own)
    manifest = state.models.manifest(state.models.import_folder(folder).version)
    assert classes.listed(manifest) == [None, 0, None]
    classes.change(wanted("rose", *NAMES[1:], renamed={"red": "rose"}), 1, None)
    # Its "red" is "rose" now; its own "rose" is another class, which the list has not.
    assert classes.listed(manifest) == [None, 0, None]
    classes.change(wanted("rose", *NAMES[1:], "tree"), 2, None)
    assert classes.listed(manifest) == [5, 0, None]
    classes.change(wanted("rose", *NAMES[1:], "pine", renamed={"tree": "pine"}), 3, None)
    assert classes.table(manifest).names == ("pine", "rose", "rose (not listed)")
    assert state.models.get("own").classes_version == 1
