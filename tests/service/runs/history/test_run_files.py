"""Texts of a run that clients may read."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.errors import RunFileMissing
from service.runs.history.run_files import MAX_LOG_BYTES, read_log, read_recipe, report_file


def test_log_ends_with_the_last_lines_and_names_no_folders(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("$ /opt/venv/bin/python -m trainer train /srv/runs/r1/recipe.toml\none\ntwo\n")
    assert read_log(tmp_path, 2) == "one\ntwo\n"
    assert read_log(tmp_path, 10) == "$ python -m trainer train recipe.toml\none\ntwo\n"


def test_long_log_is_read_from_its_end_only(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_bytes(b"".join(b"line %07d \xff\n" % number for number in range(200_000)))
    log = read_log(tmp_path, 1_000_000)
    assert MAX_LOG_BYTES // 2 < len(log) <= MAX_LOG_BYTES
    assert log.startswith("line 0")
    assert log.endswith("line 0199999 �\n")


def test_recipe_names_no_folders(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text('init = "/srv/data/models/v1/model.safetensors"\nseed = 3\n')
    assert read_recipe(tmp_path) == 'init = "model.safetensors"\nseed = 3\n'


def test_missing_files_are_errors_that_say_when_they_appear(tmp_path: Path) -> None:
    with pytest.raises(RunFileMissing, match="when training starts"):
        read_log(tmp_path, 1)
    with pytest.raises(RunFileMissing, match="before training starts"):
        read_recipe(tmp_path)
    with pytest.raises(RunFileMissing, match="when it finishes"):
        report_file(tmp_path)
