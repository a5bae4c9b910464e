"""The end of the report: what to do next, from the figures of the run."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.conftest import make_recipe
from trainer.evaluation.metrics import Scores, scores
from trainer.report.class_table import class_rows
from trainer.report.history import History, build_history
from trainer.report.next_steps import Step, next_steps
from trainer.taxonomy import Taxonomy

NAMES = ("road", "fence", "tram")
TAXONOMY = Taxonomy(NAMES, ((0, 0, 0), (9, 9, 9), (200, 10, 10)))


def history(*miou: float) -> History:
    return build_history({"event": "evaluation", "step": step, "miou": value} for step, value in enumerate(miou, 1))


def steps(
    found: Scores | None,
    *,
    method: str = "unimatch_v2",
    encoder: str = "efficientnet_lite0",
    curve: History | None = None,
) -> dict[str, Step]:
    recipe = make_recipe(Path(), method, steps=500)
    recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, encoder=encoder))
    rows = class_rows(TAXONOMY, torch.tensor([0.98, 0.02, 0.0]), found, None)
    return {step.title: step for step in next_steps(recipe, rows, found, curve or history())}


def good(**changes: Any) -> Scores:
    table = scores(torch.tensor([[900, 10, 0], [10, 90, 0], [0, 0, 9]]), NAMES, 12)
    return dataclasses.replace(table, miou_interval=(0.8, 0.85), **changes)


def test_without_val_images_measuring_comes_first() -> None:
    assert [*steps(None)] == ["Label validation images, 10 or more"]


def test_few_val_images_and_weak_or_unseen_classes_are_named_with_their_figures() -> None:
    weak = scores(torch.tensor([[900, 0, 0], [60, 40, 0], [0, 0, 9]]), NAMES, 5)
    found = steps(dataclasses.replace(weak, miou_interval=(0.4, 0.6)))
    assert (
        "5 of them leave the mIoU anywhere between 0.40 and 0.60"
        in found["Label more validation images, about 20 in all"].reason
    )
    labels = found["Label more images of fence, tram"].reason
    assert labels == "fence has IoU 0.40 with 2.0% of the labelled pixels; no label shows tram"


@pytest.mark.parametrize(
    ("curve", "encoder", "expected"),
    [
        ((0.2, 0.3, 0.4), "efficientnet_lite0", "Train longer"),
        (
            (0.4, 0.4, 0.4),
            "efficientnet_lite0",
            "Take a larger encoder: vit_small_patch14_dinov2 (own/small_gpu.toml, on a GPU)",
        ),
        ((0.4, 0.4, 0.4), "resnet101", None),
        ((0.5, 0.4, 0.3), "efficientnet_lite0", None),
    ],
)
def test_trend_says_longer_or_larger(curve: tuple[float, ...], encoder: str, expected: str | None) -> None:
    found = steps(good(), encoder=encoder, curve=history(*curve))
    offered = [title for title in found if title.startswith(("Train", "Take"))]
    assert offered == ([expected] if expected else [])
    assert expected != "Train longer" or "--set train.steps=1000" in found["Train longer"].command


def test_labels_only_run_is_told_to_add_unlabelled_images() -> None:
    assert "Add unlabelled images" in steps(good(), method="supervised")
    assert "Add unlabelled images" not in steps(good())
    assert list(steps(good()))[-1] == "Serve the model"


def test_history_keeps_one_warning_of_a_kind() -> None:
    events = [{"event": "warning", "kind": "one scene", "message": text, "remedy": "r"} for text in ("a", "b")]
    assert [each["message"] for each in build_history(events).warnings.values()] == ["b"]
