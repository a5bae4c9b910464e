"""Training batches: scale of crops, order of images, class frequency, checks before a run, fingerprint."""

import os
import re
import subprocess
import sys
import weakref
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from trainer.data.batches.loaders import (
    Crop,
    LabelledBatch,
    LabelledPairs,
    UnlabelledViews,
    load,
    rows_with_partner,
    shuffled,
)
from trainer.data.check.label_check import check_labels
from trainer.data.dataset import FULL_READ_LIMIT, Sample, fingerprint
from trainer.data.decode import ImageError
from trainer.data.readers.layouts import open_dataset
from trainer.data.scan import check_unlabelled, class_frequency
from trainer.methods.interface import StepContext
from trainer.methods.supervised import labelled_rows

CROP = Crop((16, 16), (0.5, 2.0), 0)


def test_crops_use_the_scale_of_inference() -> None:
    """With long_side set, a large and a small image of the same scene are cropped at the same scale."""
    crop = Crop((32, 32), (0.5, 2.0), 7, long_side=64)
    large, small = (crop.window(size, stream=1, draw=3) for size in ((3024, 4032), (48, 64)))
    assert (large.height, large.width) == (small.height, small.width)
    assert 32 <= large.width <= 128
    native = Crop((32, 32), (0.5, 2.0), 7).window((48, 64), stream=1, draw=3)
    assert native == small


def test_sampler_draws_each_image_once_per_epoch_and_resumes_in_the_same_order() -> None:
    whole = list(shuffled(6, 2, range(2), start=0, steps=6, seed=1, stream=1))
    assert sorted(index for batch in whole[:3] for index, _ in batch) == list(range(6))
    assert sorted(index for batch in whole[3:] for index, _ in batch) == list(range(6))
    assert list(shuffled(6, 2, range(2), start=4, steps=6, seed=1, stream=1)) == whole[4:]


def test_order_and_crops_use_different_random_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy pads seeds with zeros, so that different seed lists may give the same stream."""
    real, states = np.random.default_rng, []

    def recorded(seed: list[int]) -> np.random.Generator:
        states.append(tuple(np.random.SeedSequence(seed).generate_state(4)))
        return real(seed)

    monkeypatch.setattr(np.random, "default_rng", recorded)
    for draw in range(6):
        CROP.window((48, 48), stream=1, draw=draw)
    list(shuffled(1, 1, range(1), start=0, steps=6, seed=CROP.seed, stream=1))
    assert len(states) == 12
    assert len(set(states)) == 12


@pytest.mark.parametrize(("ignore_index", "kind"), [(255, torch.uint8), (65535, torch.int32)])
def test_masks_are_transferred_in_a_small_dtype_and_converted_to_int64(
    dataset: Path, ignore_index: int, kind: torch.dtype
) -> None:
    path = dataset / "classes.toml"
    path.write_text(f"ignore_index = {ignore_index}\n{path.read_text()}")
    data = open_dataset(dataset)
    # The image fills half of the crop's sides; the rest is padded with ignore_index.
    image_HWC, mask_HW = LabelledPairs(data, data.split("labelled"), Crop((32, 32), (1 / 3, 1 / 3), 0))[0, 0]
    assert mask_HW.dtype == kind
    assert set(mask_HW.flatten().tolist()) == {0, 1, ignore_index}
    context = Mock(spec=StepContext, ignore_index=ignore_index, class_weights_K=None)
    label_BHW, weight_BHW = labelled_rows(LabelledBatch(image_HWC[None], mask_HW[None]), context)
    assert label_BHW.dtype == torch.int64
    assert set(label_BHW.flatten().tolist()) == {0, 1}
    assert weight_BHW.sum() == 16 * 16


def test_class_frequency_is_counted_without_decoding_images(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, share in {"labelled0": 12, "labelled1": 24}.items():
        mask_HW = np.ones((48, 48), dtype=np.uint8)
        mask_HW[:share], mask_HW[-16:] = 0, 255
        Image.fromarray(mask_HW).save(dataset / f"masks/{name}.png")
    data = open_dataset(dataset)
    monkeypatch.setattr(data, "read", None)
    # Class 0 has 12 and 24 rows of the 32 that are not ignored in each mask.
    assert class_frequency(data, data.split("labelled")[:2]).tolist() == [36 / 64, 28 / 64]
    assert class_frequency(data, ()).tolist() == [0.0, 0.0]


def test_processes_share_a_batch_and_get_the_preceding_row() -> None:
    whole = next(iter(shuffled(9, 6, range(6), start=0, steps=1, seed=1, stream=2)))
    parts = [
        next(iter(shuffled(9, 6, rows_with_partner(share, 6), start=0, steps=1, seed=1, stream=2)))
        for share in (range(3), range(3, 6))
    ]
    assert parts[0] == [*whole[:3], whole[5]]
    assert parts[1] == [*whole[3:], whole[2]]


def test_batches_do_not_depend_on_the_number_of_workers(dataset: Path) -> None:
    data = open_dataset(dataset)
    pairs = LabelledPairs(data, data.split("labelled"), CROP)
    without_worker, with_worker = (
        list(load(pairs, shuffled(4, 2, range(2), start=0, steps=3, seed=0, stream=1), workers=workers, pinned=False))
        for workers in (0, 1)
    )
    for ours, theirs in zip(without_worker, with_worker, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_unreadable_image_in_training_is_named(dataset: Path) -> None:
    (dataset / "images/unlabelled2.png").write_bytes(b"broken")
    data = open_dataset(dataset)
    views = UnlabelledViews(data, data.split("unlabelled"), CROP)
    sampler = shuffled(4, 4, range(4), start=0, steps=1, seed=0, stream=2)
    with pytest.raises(ImageError, match=r"unlabelled2\.png: cannot be decoded"):
        list(load(views, sampler, workers=0, pinned=False))


BAD_IMAGE_IN_A_WORKER = """
import sys
from pathlib import Path
from trainer.data.readers.layouts import open_dataset
from trainer.data.batches.loaders import Crop, shuffled, UnlabelledViews, load
data = open_dataset(Path(sys.argv[1]))
views = UnlabelledViews(data, data.split("unlabelled"), Crop((32, 32), (0.5, 2.0), 0))
list(load(views, shuffled(4, 4, range(4), start=0, steps=9, seed=0, stream=2), workers=1, pinned=False))
"""


def test_unreadable_image_in_a_worker_ends_the_program(dataset: Path) -> None:
    """The workers must neither survive the program nor delay its exit."""
    (dataset / "images/unlabelled2.png").write_bytes(b"broken")
    command = [sys.executable, "-c", BAD_IMAGE_IN_A_WORKER, str(dataset)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1
    assert re.search(r"ImageError: .*unlabelled2\.png: cannot be decoded", done.stderr.splitlines()[-1])


def test_bad_masks_and_images_are_reported_before_a_run(dataset: Path) -> None:
    data = open_dataset(dataset)
    labelled, unlabelled = data.split("labelled"), data.split("unlabelled")
    check_labels(data, "labelled", labelled, training=True)
    check_unlabelled(data, unlabelled)
    Image.new("L", (48, 48), 9).save(dataset / "masks/labelled2.png")
    with pytest.raises(ImageError, match=r"labelled2\.png: contains 9"):
        check_labels(data, "labelled", labelled, training=True)
    (dataset / "images/unlabelled1.png").write_bytes(b"broken")
    with pytest.raises(ImageError, match=r"unlabelled1\.png: cannot be decoded"):
        check_unlabelled(data, unlabelled)


def test_checks_keep_no_decoded_image(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = open_dataset(dataset)
    threads = os.cpu_count() or 1
    alive: weakref.WeakSet[Tensor] = weakref.WeakSet()
    most = []

    def read(_sample: Sample) -> Tensor:
        pixels = torch.zeros(3)
        alive.add(pixels)
        most.append(len(alive))
        return pixels

    monkeypatch.setattr(data, "read", read)
    monkeypatch.setattr(data, "read_pair", lambda sample: (read(sample), np.array([[0, 1]])))
    many = data.split("labelled") * 4 * threads
    for check in (partial(check_labels, data, "labelled", many, training=True), partial(check_unlabelled, data, many)):
        check()
        assert len(most) == 16 * threads
        assert max(most) <= 2 * threads + 1
        most.clear()


def test_only_headers_of_many_unlabelled_images_are_read(dataset: Path) -> None:
    """A file truncated after its header passes; a file that is not an image fails."""
    data = open_dataset(dataset)
    many = data.split("unlabelled") * (FULL_READ_LIMIT // 4 + 1)
    path = dataset / "images/unlabelled3.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ImageError, match="cannot be decoded"):
        check_unlabelled(data, many[:4])
    check_unlabelled(data, many)
    path.write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"unlabelled3\.png: is not an image"):
        check_unlabelled(data, many)


def test_fingerprint_depends_on_the_data_only(dataset: Path) -> None:
    data = open_dataset(dataset)
    labelled, unlabelled = data.split("labelled"), data.split("unlabelled")
    before = fingerprint((data, labelled), (data, unlabelled))
    assert fingerprint((data, labelled[::-1]), (data, unlabelled)) == before
    assert fingerprint((data, labelled), (data, unlabelled[1:])) != before
    many = unlabelled * (FULL_READ_LIMIT // 4 + 1)
    of_many = fingerprint((data, labelled), (data, many))
    Image.fromarray(np.full((48, 48), 1, dtype=np.uint8)).save(dataset / "masks/unlabelled0.png")
    assert fingerprint((data, labelled), (data, unlabelled)) == before
    Image.new("RGB", (48, 48)).save(dataset / "images/unlabelled0.png")
    assert fingerprint((data, labelled), (data, unlabelled)) != before
    assert fingerprint((data, labelled), (data, many)) != of_many
