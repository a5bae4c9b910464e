"""What was acknowledged survives a power cut, in which everything is lost that was not flushed to the disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from service.errors import ImageNotFound
from service.runs.worker.deletion_sweep import sweep_deletions
from service.state import open_state
from tests.crash_disk import CrashDisk, crash_disk
from tests.service.class_lists import TINY
from tests.service.conftest import MakeSettings, blob_file, encoded, read
from tests.service.tiny_bundle import picture

pytestmark = pytest.mark.usefixtures("on_files")

MASK = np.full((30, 40), 2, np.uint8)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[CrashDisk]:
    with crash_disk(tmp_path / "disk", 40) as mounted:
        yield mounted


def test_acknowledged_images_labels_and_deletions_survive_a_power_cut(
    disk: CrashDisk, make_settings: MakeSettings
) -> None:
    settings = make_settings(data_dir=disk.folder / "data")
    state = open_state(settings)
    files = [encoded(picture(seed=seed)) for seed in range(3)]
    added, labelled, deleted = (state.images.add(data)[0].id for data in files)
    state.images.put_mask(labelled, encoded(MASK), classes=TINY)
    state.images.delete(deleted)
    disk.shut_down()
    state.close()
    disk.mount_again()
    state = open_state(settings)
    assert [state.images.read(image_id) for image_id in (added, labelled)] == files[:2]
    assert (read(state.images.read_mask(labelled)) == MASK).all()
    with pytest.raises(ImageNotFound):
        state.images.get(deleted)
    sweep_deletions(state.database, state.images, settings.data_dir / "runs")
    assert not blob_file(state, "images", deleted).exists()
    state.close()


def test_deleted_files_do_not_come_back_in_a_power_cut(
    disk: CrashDisk, make_settings: MakeSettings, tmp_path: Path
) -> None:
    """The database is on another disk, which flushes by itself."""
    settings = make_settings(data_dir=disk.folder / "data", database_url=f"sqlite:///{tmp_path}/other.db")
    state = open_state(settings)
    deleted, labelled = (state.images.add(encoded(picture(seed=seed)))[0].id for seed in range(2))
    state.images.put_mask(labelled, encoded(MASK), classes=TINY)
    # Everything so far is on the disk.
    os.sync()
    first_mask = blob_file(state, "masks", str(state.images.get(labelled).mask_sha256))
    state.images.put_mask(labelled, encoded(MASK - 1), classes=TINY)
    state.images.delete(deleted)
    assert sweep_deletions(state.database, state.images, settings.data_dir / "runs") == 1
    disk.shut_down()
    state.close()
    disk.mount_again()
    assert not blob_file(state, "images", deleted).exists()
    assert not first_mask.exists()
