"""`export-labels` as a program."""

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.trainer.data.exports.labelled_folder import write_labelled
from trainer.command_line import main

WITHOUT_TORCH = """
import sys
from trainer.command_line import main
code = main(sys.argv[1:])
assert "torch" not in sys.modules
sys.exit(code)
"""


def run(*arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", WITHOUT_TORCH, "export-labels", *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, timeout=120)


def test_archive_on_stdout_without_torch_and_messages_on_stderr(tmp_path: Path) -> None:
    write_labelled(root := tmp_path / "own")
    ended = run(root, "--to", "coco", "--out", "-", "--json")
    assert ended.returncode == 0, ended.stderr
    with zipfile.ZipFile(io.BytesIO(ended.stdout)) as archive:
        assert archive.testzip() is None
        assert "annotations/instances_train.json" in archive.namelist()
    events = [json.loads(line) for line in ended.stderr.splitlines()]
    assert events[-1] == {"event": "done", "target": "-", "images": 4, "labels": 3}


def test_error_leaves_stdout_empty(tmp_path: Path) -> None:
    ended = run(tmp_path / "missing", "--to", "coco", "--out", "-")
    assert (ended.returncode, ended.stdout) == (1, b"")
    assert "missing: no such folder" in json.loads(ended.stderr.splitlines()[0])["message"]


def test_text_says_what_was_lost_and_how_to_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_labelled(root := tmp_path / "own")
    assert main(["export-labels", str(root), "--to", "cvat", "--out", str(tmp_path / "out.zip")]) == 0
    printed = capsys.readouterr().out
    assert "- an image has no label; it is exported without one: d\n" in printed
    assert f"4 images, 3 labels: {tmp_path}/out.zip\n" in printed
    assert f"paste {tmp_path}/out/labels.json" in printed
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        read_me = archive.read("README.md").decode()
    assert "paste FOLDER/labels.json" in read_me
    assert "- an image has no label; it is exported without one: d\n" in read_me
