"""The frame of `import`: detection, names, archives, what is written, and what is said about losses."""

import errno
import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trainer.data.imports.imported import error_of, import_folder, photograph, read_result, save_mask, truth
from trainer.command_line import main
from trainer.data.imports import import_source as program
from trainer.data.imports.output.class_plan import plan_classes
from trainer.data.imports.output.output_names import output_names, safe_name
from trainer.data.imports.source.annotated import REST, VOID, Annotated, SourceClass
from trainer.data.imports.source.loss_report import Losses
from trainer.data.imports.source.source_error import SourceError
from trainer.data.imports.source.source_folder import SourceFolder
from trainer.taxonomy import IGNORE

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Six images, two of them without a mask."""
    for index in range(6):
        photograph(tmp_path / f"source/images/frame_{index}.png", seed=index)
        if index < 4:
            save_mask(tmp_path / f"source/masks/frame_{index}.png", truth(shift=index))
    (tmp_path / "source/notes.md").write_text("by hand")
    return tmp_path / "source"


def test_json_lines_say_what_was_found_lost_and_written(source: Path, capsys: Captured) -> None:
    target = source.with_name("out.zip")
    assert main(["import", str(source), "--zip", str(target), "--json", "--seed", "3"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert events[0] == {
        "event": "found",
        "source": "source",
        "format": "masks",
        "evidence": "4 masks in masks for images in images",
    }
    assert [event["done"] for event in events if event["event"] == "progress"] == [1, 2, 3, 4, 5, 6]
    losses = {event["kind"]: event for event in events if event["event"] == "loss"}
    assert losses["image without annotation"]["count"] == 2
    assert losses["image without annotation"]["examples"] == ["images/frame_4.png", "images/frame_5.png"]
    assert events[-1]["event"] == "done"
    assert events[-1]["splits"] == {"labelled": 3, "unlabelled": 2, "val": 1, "test": 0}
    with zipfile.ZipFile(target) as archive:
        archive.extractall(source.with_name("unpacked"))
    result = read_result(source.with_name("unpacked"))
    assert {name: len(names) for name, names in result.splits.items()} == {"labelled": 3, "unlabelled": 2, "val": 1}
    assert (result.root / "overview.jpg").stat().st_size > 1000
    assert main(["check-data", str(result.root)]) == 0
    assert not list(source.parent.glob(".*"))


def test_account_has_an_entry_for_every_file(source: Path) -> None:
    account = import_folder(source).account
    files = {entry["file"]: entry for entry in account["files"]}
    assert len(files) == 11
    image = {"file": "images/frame_0.png", "as": "image", "image": "images/frame_0.png", "split": "labelled"}
    assert files["images/frame_0.png"] == image
    label = {"file": "masks/frame_0.png", "as": "label", "of": ["frame_0"], "masks": ["masks/frame_0.png"]}
    assert files["masks/frame_0.png"] == label
    assert files["notes.md"] == {"file": "notes.md", "as": "not used"}
    assert [(entry["name"], entry["masks"]) for entry in account["classes"]][1] == ("class 1", 4)
    assert sum(entry["pixels"] for entry in account["classes"]) == 4 * 30 * 40


def test_target_that_is_not_empty_is_refused(source: Path, capsys: Captured) -> None:
    (source.parent / "out").mkdir()
    (source.parent / "out/mine.txt").write_text("keep")
    assert main(["import", str(source), "--out", str(source.parent / "out")]) == 1
    assert "out: is not empty; remove it, or give another --out" in capsys.readouterr().err
    assert [path.name for path in (source.parent / "out").iterdir()] == ["mine.txt"]


def test_killed_import_leaves_no_data_set_and_can_be_repeated(source: Path) -> None:
    # Its reader waits for a writer.
    os.mkfifo(source / "images/waits.png")
    target = source.with_name("out")
    command = [sys.executable, "-m", "trainer", "import", str(source), "--out", str(target), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    while '"done": 6' not in process.stdout.readline():
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert not target.exists()
    assert [path.name for path in source.parent.glob(".*")] == [".out.partial"]
    (source / "images/waits.png").unlink()
    assert main(command[3:]) == 0
    assert not list(source.parent.glob(".*"))


def test_full_disk_is_an_error_with_a_remedy(source: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(program, "write_dataset", fail)
    assert "none: cannot be written (No space left on device); free space" in error_of(capsys, source)


def test_unknown_source_lists_what_was_looked_for(tmp_path: Path, capsys: Captured) -> None:
    photograph(tmp_path / "source/a.png")
    message = error_of(capsys, tmp_path / "source")
    assert "none of the known formats was found among 1 files. These were looked for:" in message
    assert "voc: JPEGImages and SegmentationClass, with labelmap.txt or class_names.txt" in message
    assert "--images DIR --masks DIR" in message
    assert "no such folder or ZIP archive" in error_of(capsys, tmp_path / "missing")


def test_source_of_two_formats_asks_which(tmp_path: Path, capsys: Captured) -> None:
    source = tmp_path / "source"
    photograph(source / "JPEGImages/a.png")
    save_mask(source / "SegmentationClass/a.png", truth())
    (source / "class_names.txt").write_text("_background_\nx\ny\n")
    photograph(source / "train/b.png")
    save_mask(source / "train/b_mask.png", truth())
    (source / "train/_classes.csv").write_text("Pixel Value, Class\n0, g\n1, x\n2, y\n")
    message = error_of(capsys, source)
    assert "could be read in several ways" in message
    assert "--format voc: 1 image in JPEGImages, class_names.txt" in message
    assert "--format roboflow-masks: 1 mask, and train/_classes.csv" in message
    assert list(import_folder(source, "--format", "voc").masks) == ["a"]


def test_link_shares_the_bytes(source: Path) -> None:
    result = import_folder(source, "--link")
    assert (result.root / "images/frame_0.png").samefile(source / "images/frame_0.png")


def packed(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("name", ["../evil.png", "/etc/evil.png", "a/../../evil.png", "C:\\evil.png", "a/" * 20 + "x"])
def test_archive_that_leaves_its_folder_is_refused(tmp_path: Path, capsys: Captured, name: str) -> None:
    archive = packed(tmp_path / "source.zip", {name: b"x"})
    assert "which leaves the folder; zip the folder again" in error_of(capsys, archive)
    assert [path.name for path in tmp_path.iterdir()] == ["source.zip"]


def test_archive_limits(tmp_path: Path, capsys: Captured) -> None:
    archive = packed(tmp_path / "source.zip", {"zeros.png": bytes(10_000_000)})
    assert "unpacks to more than the limit; raise --max-unpacked-gb" in error_of(
        capsys, archive, "--max-unpacked-gb", "0.001"
    )
    archive.write_bytes(archive.read_bytes()[:-30])
    assert "is not a readable ZIP archive" in error_of(capsys, archive)


def annotated(path: str, name: str) -> Annotated:
    return Annotated(image=Path(path), path=path, name=name, label=None)


def test_equal_names_get_folders_then_suffixes() -> None:
    files = ["train/x.jpg", "val/X.jpg", "val/y.png", "val/y.jpg", "z.png"]
    losses = Losses()
    names = output_names([annotated(file, Path(file).stem) for file in files], losses)
    assert names == ["train/x", "val/X", "val/y_png", "val/y_jpg", "z"]
    assert losses.groups()[0].examples[0] == "train/x.jpg is train/x"


@pytest.mark.parametrize(
    ("name", "safe"), [("a\\b\n", "a_b_"), ("../x", "x"), ("/abs/.hid", "abs/hid"), (" a / b ", "a/b"), ("..", "_")]
)
def test_names_are_safe_for_lists_and_file_systems(name: str, safe: str) -> None:
    assert safe_name(name) == safe


def test_classes_are_merged_ignored_and_coloured() -> None:
    classes = [
        SourceClass("leaf", (1, 2, 3)),
        SourceClass(" Background_", None),
        SourceClass("leaf"),
        SourceClass("stem", (1, 2, 3)),
        SourceClass("__ignore__", ignored=True),
        SourceClass("mud"),
    ]
    losses = Losses()
    plan = plan_classes(classes, rest="background", ignored=["mud"], losses=losses)
    assert plan.taxonomy.names == ("leaf", "background", "stem")
    assert plan.taxonomy.colors == ((1, 2, 3), (0, 0, 0), (128, 0, 0))
    ids = plan.convert(np.array([[0, 1, 2, 3, 4, 5, REST, VOID]], np.uint16))
    assert ids.tolist() == [[0, 1, 0, 2, IGNORE, IGNORE, 1, IGNORE]]
    assert {loss.kind for loss in losses.groups()} == {"background", "duplicate class"}
    with pytest.raises(SourceError, match="--ignore-class 'tree': is no class; the classes are leaf, background"):
        plan_classes(classes, rest=None, ignored=["tree"], losses=losses)


def test_rest_can_be_ignored() -> None:
    plan = plan_classes([SourceClass("leaf")], rest="ignored", ignored=(), losses=Losses())
    assert plan.taxonomy.names == ("leaf",)
    assert plan.convert(np.array([[0, REST]], np.uint16)).tolist() == [[0, IGNORE]]


@pytest.mark.parametrize(
    ("named", "near", "file"),
    [
        ("C:\\data\\upload\\b.jpg", "", "two/b.jpg"),
        ("https://host/x/B.JPG?token=1", "", "two/b.jpg"),
        ("s3://bucket/one/a%20b.png", "", "one/a b.png"),
        ("../../one/a b.png", "", "one/a b.png"),
        ("/somewhere/two/a b.png", "", "two/a b.png"),
        ("a b.png", "two/notes.json", "two/a b.png"),
        ("a b.png", "", None),
        ("/etc/passwd", "", None),
        ("", "", None),
    ],
)
def test_named_files_are_found_only_within_the_source(tmp_path: Path, named: str, near: str, file: str | None) -> None:
    for path in ("one/a b.png", "two/a b.png", "two/b.jpg"):
        photograph(tmp_path / path)
    assert SourceFolder(tmp_path).match(named, near) == file
