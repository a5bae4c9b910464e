"""Atomic file replacement, also on a full disk."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.small_disk import small_disk
from trainer.atomic_write import atomic_write
from trainer.run_error import RunError


def write(target: Path, kind: str) -> None:
    """Write 4 MB; "nothing": fail after less."""
    weights = torch.zeros(1_000_000)
    with atomic_write(target) as temporary:
        if kind == "safetensors":
            save_file({"weights": weights}, temporary)
        elif kind == "torch":
            torch.save(weights, temporary)
        else:
            temporary.write_text("x" * (4_000_000 if kind == "text" else 1))
        if kind == "nothing":
            raise ValueError("on purpose")


def test_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.write_text("old")
    with pytest.raises(ValueError, match="on purpose"):
        write(target, "nothing")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("text", ["[Errno 122] Disk quota exceeded", "Error: Disk quota exceeded (os error 122)"])
def test_exceeded_quota_is_a_full_disk(tmp_path: Path, text: str) -> None:
    with pytest.raises(RunError, match="model: the disk is full"), atomic_write(tmp_path / "model"):
        raise RuntimeError(text)


@pytest.mark.parametrize("kind", ["text", "safetensors", "torch"])
def test_full_disk_gets_a_remedy_and_keeps_the_old_file(tmp_path: Path, kind: str) -> None:
    with small_disk(tmp_path / "disk", 2) as disk:
        target = disk.folder / "model"
        target.write_text("old")
        with pytest.raises(RunError, match="model: the disk is full; free space"):
            write(target, kind)
        assert [path.name for path in disk.folder.iterdir()] == ["model"]
        assert target.read_text() == "old"
