"""`maskloop push`, `maskloop pull` and `maskloop labels`: data sets to the pool and back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tomli_w

from service.client.sync_client import Client
from tests.service.api.middleware.conftest import serving
from tests.service.client.conftest import Run, write_pictures
from tests.service.conftest import TEST_KEY, MakeSettings, encoded, read
from tests.service.tiny_bundle import NAMES

# In another order than the service has them.
CLASSES = ("blue", "red", "green")
NAMES_OF_SPLITS = {
    "labelled": ["clip1_0", "clip1_1"],
    "val": ["clip2_0"],
    "unlabelled": ["clip3_0"],
    "test": ["clip4_0"],
}


@pytest.fixture
def url(make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A service with an empty pool."""
    with serving(make_settings()) as (host, port):
        monkeypatch.setenv("MASKLOOP_SERVER", f"http://{host}:{port}")
        yield f"http://{host}:{port}"


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "DATASET"
    names = [name for split in NAMES_OF_SPLITS.values() for name in split]
    write_pictures(folder / "images", *(f"{name}.png" for name in names))
    (folder / "masks").mkdir()
    rng = np.random.default_rng(0)
    for name in names[:4]:
        mask = rng.choice(np.array([0, 1, 2, 255], np.uint8), (30, 40))
        (folder / f"masks/{name}.png").write_bytes(encoded(mask))
    write_splits(folder, NAMES_OF_SPLITS)
    write_classes(folder, CLASSES)
    return folder


def write_splits(folder: Path, splits: dict[str, list[str]]) -> None:
    (folder / "splits").mkdir(exist_ok=True)
    for split, names in splits.items():
        (folder / f"splits/{split}.txt").write_text("\n".join(names) + "\n")


def write_classes(folder: Path, names: tuple[str, ...]) -> None:
    classes = [{"name": name, "color": [number, 0, 0]} for number, name in enumerate(names)]
    (folder / "classes.toml").write_text(tomli_w.dumps({"classes": classes}))


def test_data_set_makes_the_round_trip(run: Run, url: str, dataset: Path, tmp_path: Path) -> None:
    ran = run("push", dataset, "--group", "^(clip[0-9]+)_", "--json")
    assert ran.code == 0, ran.err
    assert ran.json() == {
        "images_sent": 4,
        "images_present": 0,
        "labels_sent": 3,
        "labels_present": 0,
        "test_left_out": 1,
        "failed": [],
    }
    with Client(url, TEST_KEY) as client:
        pool = list(client.list_images())
    assert sorted((image.split or "", image.group or "") for image in pool) == [
        ("", ""),
        ("labelled", "clip1"),
        ("labelled", "clip1"),
        ("val", "clip2"),
    ]

    # Again, without what was sent: nothing counts as a new label.
    again = run("push", dataset, "--group", "^(clip[0-9]+)_", "--json").json()
    assert (again["images_present"], again["labels_sent"], again["labels_present"]) == (4, 0, 3)

    pulled = run("pull", "--out", "pulled", "--json")
    assert (pulled.code, pulled.json()["files_fetched"]) == (0, 7), pulled.err
    check_labels(dataset, tmp_path / "pulled")
    assert run("pull", "--out", "pulled", "--json").json()["files_fetched"] == 0

    # What was fetched can be sent: with its groups, in the classes of the service.
    sent = run("push", "pulled", "--json").json()
    assert (sent["images_present"], sent["labels_present"], sent["failed"]) == (4, 3, [])


def check_labels(dataset: Path, pulled: Path) -> None:
    """Every label means the same classes, by name."""
    originals = {path.read_bytes(): path for path in (dataset / "images").iterdir()}
    val = (pulled / "splits/val.txt").read_text().split()
    assert len(val) == 1
    checked = 0
    for image in (pulled / "images").iterdir():
        original = originals[image.read_bytes()]
        mask = pulled / "masks" / image.name
        assert mask.exists() == (original.stem not in ("clip3_0", "clip4_0"))
        if mask.exists():
            ids, found = read((dataset / "masks" / original.name).read_bytes()), read(mask.read_bytes())
            names = np.array([*CLASSES, *[""] * 252, "ignored"])[ids]
            np.testing.assert_array_equal(np.array([*NAMES, *[""] * 250, "ignored"])[found], names)
            assert (image.stem in val) == (original.stem == "clip2_0")
            checked += 1
    assert checked == 3


def test_changed_label_is_sent_and_fetched_again(run: Run, url: str, dataset: Path, tmp_path: Path) -> None:
    run("push", dataset)
    run("pull", "--out", "pulled")
    with Client(url, TEST_KEY) as client:
        image = next(image for image in client.list_images() if image.split == "val")
        client.put_mask(image.id, encoded(np.full((30, 40), 3, np.uint8)))
    assert run("push", dataset, "--json").json()["labels_sent"] == 1
    mask = tmp_path / f"pulled/masks/{image.id}.png"
    mask.write_bytes(b"of another time")
    assert run("pull", "--out", "pulled", "--json").json()["files_fetched"] == 1
    assert set(np.unique(read(mask.read_bytes()))) <= {0, 1, 2, 255}


@pytest.mark.usefixtures("url")
def test_refusals_are_listed_with_reasons(run: Run, dataset: Path) -> None:
    (dataset / "masks/clip1_1.png").write_bytes(encoded(np.full((30, 40), 7, np.uint8)))
    (dataset / "masks/clip2_0.png").unlink()
    (dataset / "images/note.jpg").write_text("no image")
    for kind in ("images", "masks"):
        (dataset / kind / "copy.png").write_bytes((dataset / kind / "clip1_0.png").read_bytes())
    ran = run("push", dataset)
    assert ran.code == 3
    assert "images: 4 sent, 0 were there; labels: 1 sent, 0 were there; failed: 4" in ran.out
    assert "label not sent: the image has the same bytes as" in ran.err
    assert "the mask holds the ids [7], which classes.toml does not have: renumber it" in ran.err
    assert "the split val lists it and there is no mask" in ran.err
    assert "DATASET/images/note.jpg" in ran.err


@pytest.mark.usefixtures("url")
def test_classes_that_the_service_lacks_are_an_error(run: Run, dataset: Path) -> None:
    write_classes(dataset, ("red", "weed", "green"))
    ran = run("push", dataset)
    assert (ran.code, ran.out) == (2, "")
    assert "The service has no class 'weed'; its classes are red, green, blue, black, white." in ran.err
    assert run("push", dataset, "--by-id").code == 0

    # The classes of the data set become those of the service.
    refused = run("classes", "set", dataset / "classes.toml", "--rename", "blue=weed")
    assert (refused.code, "lacks 'black', 'white'" in refused.err) == (2, True)
    changed = run(
        "classes", "set", dataset / "classes.toml", "--rename", "blue=weed", "--retire-others", "--json"
    ).json()
    assert [each["name"] for each in changed["classes"]] == ["red", "weed", "green"]
    assert changed["changes"]["renamed"] == {"blue": "weed"}
    assert "weed" in run("classes", "show").out
    # Those sent before by the ids of the former list mean other classes.
    assert run("push", dataset, "--json").json()["labels_sent"] == 3
    (dataset / "classes.toml").unlink()
    assert "nobody knows what their ids mean" in run("push", dataset).err


@pytest.mark.usefixtures("url")
def test_folder_of_images_is_sent_without_labels(run: Run, tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", "a.png", "sub/b.png")
    assert run("push", "photos").out.startswith("images: 2 sent, 0 were there; labels: 0 sent")
    assert run("labels", "--json").json() == {"labelled": 0, "val": 0, "unlabelled": 2, "next": []}
    assert "is analysed" in run("labels").err


def test_lists_of_missing_images_are_an_error(run: Run, dataset: Path) -> None:
    write_splits(dataset, {"val": ["clip2_0", "lost"]})
    ran = run("push", dataset, "--server", "http://127.0.0.1:9")
    assert (ran.code, "lists 1 images that do not exist, such as 'lost'" in ran.err) == (2, True)
