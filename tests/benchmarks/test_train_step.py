"""The training benchmark: both sides learn from the same files, and the table says what was measured."""

import argparse
from pathlib import Path

import pytest
import torch

from tests.benchmarks.data_pipeline import pipeline_figures
from tests.benchmarks.photographs import CLASSES, write_photographs
from tests.benchmarks.plain_data import plain_batches
from tests.benchmarks.plain_step import PlainStep
from tests.benchmarks.train_step import arguments, text
from tests.trainer.conftest import TINY_VIT
from trainer.config import Model
from trainer.data.layouts import open_dataset
from trainer.models.segmenter import Segmenter, build_segmenter


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photographs(tmp_path_factory.mktemp("bench") / "photographs", 3)


def tiny_segmenter() -> Segmenter:
    tiny = TINY_VIT | {"projections": (8, 8, 8, 8)}
    return build_segmenter(Model(**tiny), CLASSES)  # type: ignore[arg-type]


def test_the_photographs_are_a_data_set(photographs: Path) -> None:
    dataset = open_dataset(photographs)
    image_HWC, mask_HW = dataset.read_pair(dataset.split("labelled")[0])
    assert (image_HWC.shape, len(dataset.taxonomy)) == ((480, 640, 3), CLASSES)
    assert 1 < len(set(mask_HW.flat)) <= CLASSES


def test_the_plain_step_moves_student_and_teacher(photographs: Path) -> None:
    torch.manual_seed(0)
    plain = PlainStep(tiny_segmenter(), torch.device("cpu"))
    batches = plain_batches(photographs, 32, 2, 0, pinned=False)
    before = [parameter.clone() for parameter in plain.student.head.parameters()]
    for _ in range(2):
        plain.step(*next(batches))
    after = list(plain.student.head.parameters())
    assert any(not old.equal(new) for old, new in zip(before, after, strict=True))
    # The teacher is the first student after step 0, and half-way to the second after step 1.
    assert any(not old.equal(new) for old, new in zip(plain.teacher.head.parameters(), after, strict=True))
    assert plain.sums["loss"] > 0


def test_the_plain_teacher_starts_as_a_copy(photographs: Path) -> None:
    plain = PlainStep(tiny_segmenter(), torch.device("cpu"))
    plain.step(*next(plain_batches(photographs, 32, 2, 0, pinned=False)))
    for new, old in zip(plain.student.parameters(), plain.teacher.parameters(), strict=True):
        assert old.equal(new)


def test_what_goes_over_the_wire(photographs: Path) -> None:
    # Bytes a pixel. Plain, labelled: 12 + 8; unlabelled: 3 views of 12, padding of 8, two boxes of 4.
    figures = pipeline_figures(photographs, 32)
    assert figures["plain"]["wire_bytes"] == 32 * 32 * ((12 + 8) + (36 + 8 + 8)) / 2
    assert figures["ours"]["wire_bytes"] < figures["plain"]["wire_bytes"] / 4


def test_the_table_by_hand() -> None:
    sides = {"plain": {"images_per_s_per_core": 5.0, "wire_bytes": 4e6}, "ours": {"images_per_s_per_core": 20.0}}
    found = {
        "machine": "a machine",
        "setting": vars(arguments(["--device", "cpu"])),
        "images_per_s": {"plain": 2.0, "ours": 5.0},
        "peak_bytes": {"plain": 4 * 2**30, "ours": 2**30},
        "data": {224: {"plain": sides["plain"], "ours": sides["ours"] | {"wire_bytes": 1e6}}},
        "limit": {
            "flop": 2e12,
            "bytes": 1e9,
            "flop_per_s": 1e12,
            "bytes_per_s": 1e10,
            "precision": "float32",
            "limit_s": 2.0,
            "step_s": 4.0,
        },
    }
    said = text(found)
    assert "ViT-S, crop 224, 4+4 images" in said
    assert "| images/s | 2.00 | 5.00 | 2.50 |" in said
    assert "| peak memory, GiB | 4.00 | 1.00 | 0.25 |" in said
    assert "| crop 224, data alone, images/s per core | 5.00 | 20.00 | 4.00 |" in said
    assert "| crop 224, data alone, MB an image to the device | 4.00 | 1.00 | 0.25 |" in said
    assert "50% of what the machine could do" in said


def test_defaults_go_by_the_device() -> None:
    on_cpu, on_gpu = arguments(["--device", "cpu"]), arguments(["--device", "cuda"])
    assert isinstance(on_cpu, argparse.Namespace)
    assert (on_cpu.model, on_cpu.crop, on_gpu.model, on_gpu.crop) == ("small", 224, "base", 518)
