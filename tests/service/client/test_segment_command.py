"""`maskloop segment`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.service.client.conftest import Run, write_pictures
from tests.service.conftest import read
from tests.service.tiny_bundle import COLORS, nearest

pytestmark = pytest.mark.usefixtures("url")


def test_folders_files_and_patterns_become_masks(run: Run, tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", "a.png", "day 2/b.png", ".hidden.png")
    write_pictures(tmp_path, "one.png", "x1.png", "x2.png", seed=1)
    ran = run("segment", "photos", "one.png", "x*.png", "--out", "masks", "--json")
    assert ran.code == 0, ran.err
    names = {"a.png", "day 2/b.png", "one.png", "x1.png", "x2.png"}
    assert set(ran.json()["written"]) == names
    for name in names:
        image = next(path for path in (tmp_path / name, tmp_path / "photos" / name) if path.exists())
        mask = read((tmp_path / "masks" / name).read_bytes())
        np.testing.assert_array_equal(mask, nearest(np.asarray(read(image.read_bytes())), COLORS))
    assert "key of $MASKLOOP_API_KEY" in ran.err


def test_large_folders_and_small_limits_of_the_service(run: Run, tmp_path: Path) -> None:
    # A batch has 16 images, and this service takes 8.
    write_pictures(tmp_path / "photos", *(f"{number}.png" for number in range(19)))
    assert run("segment", "photos", "--out", "masks").out == "masks: 19 written to masks\n"
    assert len(list((tmp_path / "masks").glob("*.png"))) == 19


def test_failure_does_not_stop_the_others(run: Run, tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", "a.png", "b.png")
    (tmp_path / "photos/broken.png").write_bytes(b"no image")
    (tmp_path / "photos/empty.png").touch()
    ran = run("segment", "photos", "--out", "masks")
    assert (ran.code, ran.out) == (3, "masks: 2 written to masks, 2 failed\n")
    assert "1 failed: The part is empty: send the file itself.\n    photos/empty.png" in ran.err


def test_interrupted_command_continues(run: Run, tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", "a.png", "b.png")
    run("segment", "photos", "--out", "photos/masks")
    (tmp_path / "photos/masks/b.png").unlink()
    # A line that was cut off.
    with (tmp_path / "photos/masks/masks.jsonl").open("a") as journal:
        journal.write('{"mask": "b.p')
    write_pictures(tmp_path / "photos", "c.png", seed=1)
    ran = run("segment", "photos", "--out", "photos/masks", "--overlay", "--json").json()
    # Those without an overlay are not complete.
    assert (sorted(ran["written"]), ran["skipped"], ran["failed"]) == (["a.png", "b.png", "c.png"], 0, [])
    assert run("segment", "photos", "--out", "photos/masks", "--overlay", "--json").json()["skipped"] == 3
    assert (tmp_path / "photos/masks/c.overlay.jpg").read_bytes().startswith(b"\xff\xd8")


def test_other_file_is_not_overwritten(run: Run, tmp_path: Path) -> None:
    write_pictures(tmp_path, "a.png")
    write_pictures(tmp_path / "masks", "a.png", seed=5)
    ran = run("segment", "a.png", "--out", "masks")
    assert ran.code == 3
    assert "the mask exists and is not of this image: give another --out, or --force" in ran.err
    assert run("segment", "a.png", "--out", "masks", "--force").code == 0
    entry = json.loads((tmp_path / "masks/masks.jsonl").read_text())
    assert (entry["image"], entry["mask"], sum(entry["classes"].values())) == ("a.png", "a.png", pytest.approx(1))


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["photos", "--out", "photos"], "would be overwritten: give another --out"),
        (["photos/a.png", "photos/sub/A.png", "--out", "masks"], "would both become masks/A.png"),
        (["nothing", "--out", "masks"], "nothing: no such file or folder"),
        (["empty", "--out", "masks"], "empty: no image"),
    ],
)
def test_wrong_paths_are_named_before_anything_is_sent(run: Run, tmp_path: Path, words: list[str], text: str) -> None:
    write_pictures(tmp_path / "photos", "a.png", "sub/A.png")
    (tmp_path / "empty").mkdir()
    ran = run("segment", *words)
    assert (ran.code, ran.out) == (2, "")
    assert text in ran.err


def test_only_some_classes(run: Run, tmp_path: Path) -> None:
    write_pictures(tmp_path, "a.png")
    assert run("segment", "a.png", "--out", "masks", "--classes", "red,blue").code == 0
    found = read((tmp_path / "masks/a.png").read_bytes())
    assert set(np.unique(found)) <= {0, 2, 255}
    ran = run("segment", "a.png", "--out", "others", "--classes", "weed")
    assert (ran.code, "No such class" in ran.err or "weed" in ran.err) == (3, True)


def test_service_that_refuses_everything_ends_the_command(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pictures(tmp_path, "a.png", "b.png")
    monkeypatch.setenv("MASKLOOP_API_KEY", "maskloop_unknown")
    ran = run("segment", "a.png", "b.png", "--out", "masks")
    assert (ran.code, ran.out) == (1, "")
    assert "error: This key is unknown" in ran.err
