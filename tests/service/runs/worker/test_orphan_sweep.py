"""What killed processes leave in the data folder is deleted once it has not changed for a while."""

from __future__ import annotations

import numpy as np
import pytest

from service.runs.worker.orphan_sweep import UNCHANGED_HEARTBEATS, OrphanSweep
from service.state import State
from tests.service.class_lists import TINY
from tests.service.conftest import blob_file, encoded, read
from tests.service.runs.conftest import SteppedClock, fill
from tests.service.tiny_bundle import picture

OTHER_MASK = encoded(np.full((30, 40), 2, np.uint8))

pytestmark = pytest.mark.usefixtures("on_files")


def test_files_of_a_process_killed_before_its_row_are_deleted(loop: State, clock: SteppedClock) -> None:
    kept = fill(loop, labelled=1, val=0, unlabelled=1)
    folder = loop.settings.data_dir / "blobs" / "unconfirmed"
    assert not list(folder.glob("*/*"))
    orphan, sent_again = (loop.images.receive(encoded(picture(seed=seed))) for seed in (50, 51))
    half_written = folder / "images" / f"{'a' * 64}.0"
    half_written.write_bytes(b"half")
    imported = loop.settings.data_dir / "models" / ".import-0"
    imported.mkdir()
    sweep = OrphanSweep(loop.settings, loop.images, clock)
    assert sweep.step() == 0
    assert loop.images.add(sent_again.data)[1]
    clock.step(UNCHANGED_HEARTBEATS * loop.settings.heartbeat_s - 0.01)
    assert sweep.step() == 0
    (imported / "model.onnx").touch()
    clock.step(0.02)
    # The second half of an import has just arrived.
    assert sweep.step() == 2
    assert not blob_file(loop, "images", orphan.sha256).exists()
    assert not list(folder.glob("*/*"))
    clock.step(UNCHANGED_HEARTBEATS * loop.settings.heartbeat_s)
    assert sweep.step() == 1
    assert not imported.exists()
    for image_id in (*kept, sent_again.sha256):
        assert loop.images.read(image_id)
    assert loop.images.read_mask(kept[0])


def test_file_deleted_during_its_upload_is_stored_again(loop: State, clock: SteppedClock) -> None:
    """The transaction of an upload may begin later than the sweep takes the upload for dead."""
    received = loop.images.receive(encoded(picture(seed=50)))
    sweep = OrphanSweep(loop.settings, loop.images, clock)
    sweep.step()
    clock.step(UNCHANGED_HEARTBEATS * loop.settings.heartbeat_s)
    assert sweep.step() == 1
    loop.images.add_all([received])
    assert loop.images.read(received.sha256) == received.data


def test_replaced_mask_of_a_process_killed_after_its_row_is_deleted(
    loop: State, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    (image_id,) = fill(loop, labelled=1, val=0, unlabelled=0)
    old = str(loop.images.get(image_id).mask_sha256)

    def die(_sha256: str) -> None:
        raise SystemExit

    monkeypatch.setattr(loop.images, "delete_unused_mask", die)
    with pytest.raises(SystemExit):
        loop.images.put_mask(image_id, OTHER_MASK, classes=TINY)
    monkeypatch.undo()
    assert blob_file(loop, "masks", old).exists()
    sweep = OrphanSweep(loop.settings, loop.images, clock)
    sweep.step()
    clock.step(UNCHANGED_HEARTBEATS * loop.settings.heartbeat_s)
    assert sweep.step() == 1
    assert not blob_file(loop, "masks", old).exists()
    assert (read(loop.images.read_mask(image_id)) == 2).all()
    loop.images.put_mask(image_id, encoded(np.ones((30, 40), np.uint8)), classes=TINY)
    assert not list((loop.settings.data_dir / "blobs" / "unconfirmed").glob("*/*"))
