"""Runs after the class list has changed: data set, recipe, comparison, and what is recorded."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest

from service.classes.list_change import WantedClass, WantedList
from service.errors import LabelsUnusable
from service.models.bundle import read_bundle
from service.state import State
from service.storage.tables import Split
from tests.service.conftest import encoded, read
from tests.service.runs.actor import Actor
from tests.service.runs.conftest import fill, perform_run, register_worker, write_dataset, write_version
from tests.service.tiny_bundle import COLORS, nearest, picture

ACTIVE, CANDIDATE = "20260103T000000-active00", "20260104T000000-cand0000"
SECOND = WantedList(
    classes=[WantedClass(name=name) for name in ("dark", "rose", "green", "white", "tree")],
    renamed={"red": "rose"},
    merged={"blue": "dark", "black": "dark"},
)


@pytest.fixture
def changed(loop: State, tmp_path: Path) -> State:
    """Labels of the first list, a perfect active model for it, and then another list."""
    loop.models.import_folder(write_version(tmp_path, ACTIVE))
    loop.models.activate(ACTIVE, "test")
    fill(loop)
    register_worker(loop)
    loop.models.classes.change(SECOND, 1, "anna")
    return loop


def test_run_trains_for_the_present_list(changed: State, actor: Actor, tmp_path: Path) -> None:
    listed = changed.models.classes.present()
    classes = [{"id": i, "name": c.name, "color": list(c.color)} for i, c in enumerate(listed.classes)]
    colors = (COLORS[3], COLORS[0], COLORS[1], COLORS[4], COLORS[2])
    actor.behave(candidate=str(write_version(tmp_path, CANDIDATE, colors=colors, classes=classes)))
    run = changed.retrain_policy.start("manual")
    done = perform_run(changed, run.id)
    assert (done.status, done.error, done.classes_version) == ("judged", None, 2)
    recipe = tomllib.loads((changed.settings.data_dir / "runs" / run.id / "recipe.toml").read_text())
    assert recipe["init_classes"] == {"dark": ["blue", "black"], "rose": "red"}
    assert changed.models.get(CANDIDATE).classes_version == 2
    # The two classes of the active model that were merged are one class in the comparison.
    report = done.report or {}
    assert {name: each["other_iou"] for name, each in report["comparisons"][0]["classes"].items()} == {
        "dark": 1.0,
        "rose": 1.0,
        "green": 1.0,
        "white": 1.0,
    }
    assert (done.miou_before, report["same_ids"]) == (1.0, False)
    assert (report["new_classes"]["tree"]["units"], report["new_classes"]["tree"]["not_learnt"]) == (0, False)

    # What the model learnt as "rose" is "pink" now, and a repeated run trains for the list of the first.
    pink = WantedList(
        classes=[*SECOND.classes[2:], WantedClass(name="pink"), SECOND.classes[0]], renamed={"rose": "pink"}
    )
    changed.models.classes.change(pink, 2, "anna")
    table = changed.models.classes.table(read_bundle(tmp_path / CANDIDATE).manifest)
    assert table.names == ("dark", "pink", "green", "white", "tree")
    again = changed.retrain_policy.repeat(run.id)
    write_dataset(changed, again.id, tmp_path / "again")
    assert changed.runs.get(again.id).classes_version == 2
    names = tomllib.loads((tmp_path / "again" / "classes.toml").read_text())["classes"]
    assert [each["name"] for each in names] == ["dark", "rose", "green", "white", "tree"]


def test_masks_of_the_data_set_have_the_ids_of_the_list(changed: State, tmp_path: Path) -> None:
    run = changed.retrain_policy.start("manual")
    write_dataset(changed, run.id, tmp_path / "set")
    for label in changed.runs.labels(run.id):
        own = read(changed.images.read_mask(label.image_id))
        expected = np.array([1, 2, 0, 0, 3])[own]
        np.testing.assert_array_equal(
            read((tmp_path / "set" / "masks" / f"{label.image_id}.png").read_bytes()), expected
        )
        # The file of the pool, to which the data set may have linked, is as it was.
        assert own.max() == 4


def test_run_needs_labels_of_two_classes_of_the_list(loop: State) -> None:
    register_worker(loop)
    classes = loop.models.classes.present()
    one_class = np.full((30, 40), 2, np.uint8)
    for number in range(3):
        image_id = loop.images.add(encoded(picture(seed=number)))[0].id
        split: Split = "val" if number == 2 else "labelled"
        loop.images.put_mask(image_id, encoded(one_class), classes=classes, split=split)
    with pytest.raises(LabelsUnusable, match="no label shows 'red', 'green', 'black', 'white': label some"):
        loop.retrain_policy.start("manual")
    next_run = loop.retrain_policy.next_run()
    assert next_run.classes_without_labels == ["red", "green", "black", "white"]
    assert "at least two classes" in (next_run.obstacle or "")
    two = nearest(picture(seed=0), COLORS)
    image_id = loop.images.add(encoded(picture(seed=0)))[0].id
    loop.images.put_mask(
        image_id, encoded(np.where(two == 0, 0, 2).astype(np.uint8)), classes=loop.models.classes.present()
    )
    assert loop.retrain_policy.next_run().message.endswith("No label for training shows 'green', 'black', 'white'.")
    assert loop.retrain_policy.start("manual").status == "queued"
