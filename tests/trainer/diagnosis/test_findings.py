"""Warnings about a run: each appears for its fault, with a remedy, and not without it."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.trainer.conftest import TINY_CONVNET, make_recipe, write_dataset
from tests.trainer.test_train import run
from trainer.data.readers.layouts import open_dataset
from trainer.diagnosis.findings import (
    Finding,
    norm_finding,
    pseudo_label_findings,
    scene_finding,
    score_findings,
)
from trainer.diagnosis.pixel_counts import PixelCounts, Window
from trainer.diagnosis.scenes import scene_similarity
from trainer.diagnosis.watch import rows_of_forward
from trainer.evaluation.metrics import Scores, scores
from trainer.methods.interface import StudentBatch

NAMES = ("soil", "weed", "crop")


def kinds(findings: Any) -> list[str]:
    found = [finding for finding in findings if finding]
    assert all(isinstance(finding, Finding) and finding.message and finding.remedy for finding in found)
    return [finding.kind for finding in found]


@pytest.mark.parametrize(
    ("labelled", "pseudo", "expected"),
    [
        ((50, 30, 20), (995, 5, 0), ["pseudo-labels of one class"]),
        ((50, 30, 20), (900, 100, 0), []),
        ((95, 3, 2), (1000, 0, 0), []),
        ((50, 30, 20), (5, 0, 0), ["no pseudo-labels"]),
        ((50, 30, 20), (15, 5, 0), []),
    ],
    ids=["one class", "two classes", "one class is natural", "nothing passes", "little passes"],
)
def test_pseudo_labels(labelled: tuple[int, ...], pseudo: tuple[int, ...], expected: list[str]) -> None:
    window = Window(50, labelled, pseudo, unlabelled=10_000)
    assert kinds(pseudo_label_findings(window, NAMES, "0.95")) == expected


def test_one_class_is_named_with_its_shares() -> None:
    (finding,) = pseudo_label_findings(Window(50, (50, 30, 20), (0, 300, 0), 1000), NAMES, "0.95")
    assert "100.0% of the pseudo-labels in the last 50 steps are weed, which has 30% of the labelled" in finding.message


def test_run_without_unlabelled_images_has_no_such_warning() -> None:
    assert kinds(pseudo_label_findings(Window(50, (50, 30, 20), (0, 0, 0), 0), NAMES, "0.95")) == []


def found_scores(confusion: list[list[int]], interval: tuple[float, float] | None, images: int = 30) -> Scores:
    return dataclasses.replace(scores(torch.tensor(confusion), NAMES, images), miou_interval=interval)


def test_classes_never_predicted_are_named_if_val_shows_them() -> None:
    never = found_scores([[9, 0, 0], [5, 0, 0], [0, 0, 0]], (0.5, 0.55))
    (finding,) = score_findings(never, "val")
    assert finding.kind == "classes never predicted"
    assert "no pixel of weed, which `val` shows" in finding.message
    assert kinds(score_findings(found_scores([[9, 0, 0], [1, 4, 0], [0, 0, 0]], (0.5, 0.55)), "val")) == []


@pytest.mark.parametrize(
    ("interval", "images", "text"),
    [
        ((0.4, 0.7), 6, "between 0.40 and 0.70 (95 %)"),
        (None, 1, "1 image of `val` leave the mIoU of the classes in the masks (0.85) unknown"),
        ((0.6, 0.65), 6, None),
    ],
)
def test_few_val_images(interval: tuple[float, float] | None, images: int, text: str | None) -> None:
    found = list(score_findings(found_scores([[9, 0, 0], [1, 4, 0], [0, 0, 0]], interval, images), "val"))
    assert kinds(found) == (["few val images"] if text else [])
    assert not text or text in found[0].message
    assert images != 6 or not text or "about 54 would do" in found[0].remedy


def test_small_batch() -> None:
    assert kinds([norm_finding(3), norm_finding(4)]) == ["small batch"]
    recipe = make_recipe(Path(), batch_labelled=4, batch_unlabelled=4, accumulate=2)
    assert rows_of_forward(recipe, processes=1) == 6
    assert rows_of_forward(make_recipe(Path(), "supervised", batch_labelled=4), processes=2) == 2


def write_scene(root: Path, name: str, scene: int, shift: int) -> None:
    """A smooth random picture of a scene, moved by some pixels."""
    coarse_hwC = np.random.default_rng(scene).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse_hwC).resize((64, 64), Image.Resampling.BICUBIC)
    Image.fromarray(np.roll(np.asarray(picture), shift, axis=1)).save(root / f"images/{name}.png")


@pytest.mark.parametrize(("labelled", "unlabelled", "expected"), [(0, 1, ["one scene"]), (0, 0, []), (1, 1, [])])
def test_labels_of_one_scene(tmp_path: Path, labelled: int, unlabelled: int, expected: list[str]) -> None:
    """The labelled images are frames of scene 0, or of different scenes; the unlabelled ones likewise."""
    root = write_dataset(tmp_path / "data")
    for index in range(4):
        write_scene(root, f"labelled{index}", scene=labelled * (index + 1), shift=index)
        write_scene(root, f"unlabelled{index}", scene=unlabelled * (index + 10), shift=index)
    dataset = open_dataset(root)
    similarity = scene_similarity((dataset, dataset.split("labelled")), (dataset, dataset.split("unlabelled")))
    assert kinds([scene_finding(*similarity)]) == expected


def test_pixels_are_counted_by_class() -> None:
    label_RHW = torch.tensor([[[0, 1]], [[2, 2]], [[1, 0]]])
    weight_RHW = torch.tensor([[[0.5, 0.0]], [[0.1, 0.1]], [[0.0, 0.2]]])
    batch = StudentBatch(torch.zeros(3, 3, 1, 2), label_RHW, weight_RHW, labelled=1, scale=(0.5, 0.5))
    counts = PixelCounts(3, torch.device("cpu"))
    counts.add(batch)
    counts.add(batch)
    assert counts.take(lambda tensor: tensor) == Window(2, (2, 0, 0), (2, 0, 4), 8)
    assert counts.take(lambda tensor: tensor) == Window(0, (0, 0, 0), (0, 0, 0), 0)


def test_run_emits_each_warning_once(dataset: Path, tmp_path: Path) -> None:
    """The batch is small, and a teacher that does not learn passes no threshold near 1."""
    recipe = make_recipe(
        dataset, "fixmatch", TINY_CONVNET, steps=20, lr_encoder=1e-9, batch_labelled=1, batch_unlabelled=2
    )
    strict = dataclasses.replace(recipe.unimatch, confidence_threshold=0.999)
    events = run(dataclasses.replace(recipe, unimatch=strict), tmp_path / "run")
    warnings = [event["kind"] for event in events if event["event"] == "warning"]
    assert {"small batch", "no pseudo-labels"} <= set(warnings)
    assert len(warnings) == len(set(warnings))
