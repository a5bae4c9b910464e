"""A bundle folder appears complete or not at all."""

import subprocess
import sys
from pathlib import Path

import pytest

from exporter.bundle import BundleError, new_bundle, read_manifest
from tests.small_disk import small_disk


def test_folder_appears_when_the_block_succeeds(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "bundle"
    with new_bundle(out) as folder:
        (folder / "file").write_text("text")
        assert not out.exists()
    assert (out / "file").read_text() == "text"
    assert [path.name for path in out.parent.iterdir()] == ["bundle"]


def test_error_leaves_nothing(tmp_path: Path) -> None:
    def fail_midway() -> None:
        with new_bundle(tmp_path / "bundle") as folder:
            (folder / "file").write_text("half")
            raise RuntimeError("midway")

    with pytest.raises(RuntimeError, match="midway"):
        fail_midway()
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1) as disk:

        def fill() -> None:
            with new_bundle(disk.folder / "bundle") as folder:
                (folder / "file").write_bytes(bytes(2**21))

        with pytest.raises(BundleError, match="disk/bundle: the disk is full; free space, or name a bundle on another"):
            fill()
        assert list(disk.folder.iterdir()) == []


def test_killed_process_leaves_no_bundle_and_the_next_attempt_cleans_up(tmp_path: Path) -> None:
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


def test_existing_folder_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    with pytest.raises(BundleError, match="exists already"), new_bundle(tmp_path / "bundle"):
        pass
    assert (tmp_path / "bundle").is_dir()


def test_folder_without_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is not a bundle"):
        read_manifest(tmp_path)
