"""A bundle appears complete or not at all."""

import subprocess
import sys
from pathlib import Path

import pytest

from exporter.bundle import BundleError, new_bundle, read_manifest


def test_it_appears_when_the_block_ends_well(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "bundle"
    with new_bundle(out) as folder:
        (folder / "file").write_text("text")
        assert not out.exists()
    assert (out / "file").read_text() == "text"
    assert [path.name for path in out.parent.iterdir()] == ["bundle"]


def test_nothing_is_left_after_an_error(tmp_path: Path) -> None:
    def half_a_bundle() -> None:
        with new_bundle(tmp_path / "bundle") as folder:
            (folder / "file").write_text("half")
            raise RuntimeError("midway")

    with pytest.raises(RuntimeError, match="midway"):
        half_a_bundle()
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_leaves_no_bundle_and_the_next_try_cleans_up(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    program = (
        "import os, sys; from pathlib import Path; from exporter.bundle import new_bundle\n"
        "with new_bundle(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'old').write_text('half')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(out)], check=False, timeout=60)
    assert killed.returncode == -9
    assert not out.exists()
    with new_bundle(out) as folder:
        (folder / "new").write_text("whole")
    assert [path.name for path in out.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_what_is_there_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    with pytest.raises(BundleError, match="exists already"), new_bundle(tmp_path / "bundle"):
        pass
    assert (tmp_path / "bundle").is_dir()


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is no bundle"):
        read_manifest(tmp_path)
