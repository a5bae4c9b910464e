"""Pseudo-label audit: hand-computed mask ratio and purity, and the source of the true masks."""

# N images, C channels, K classes, H W pixels

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.trainer.conftest import TINY_VIT, make_recipe
from trainer.data.readers.layouts import open_dataset
from trainer.evaluation.audit import ClassAudit, audit_pseudo_labels, evenly_spaced
from trainer.models.segmenter import Segmenter, build_segmenter
from trainer.run_data import RunData


class HalfConfident(Segmenter):
    """Classifies pixels correctly by brightness; confident in the left half of the image only."""

    def encode(self, image_BCHW: Tensor) -> list[Tensor]:
        return [image_BCHW]


class BrightnessHead(nn.Module):
    align_corners = True

    def forward(self, maps: Sequence[Tensor], *_: object) -> Tensor:
        (image_BCHW,) = maps
        bright_BHW = (image_BCHW.mean(dim=1) > 0.5).float() * 2 - 1
        scale_W = torch.where(torch.arange(image_BCHW.shape[3]) < image_BCHW.shape[3] // 2, 9.0, 0.1)
        return torch.stack([-bright_BHW, bright_BHW], dim=1) * scale_W


def teacher(dataset: Path) -> Segmenter:
    network = HalfConfident(*_parts(dataset), 2)
    network.head = BrightnessHead()  # type: ignore[assignment]  # it has what is used of a head
    return network


def _parts(dataset: Path) -> tuple[Any, Any]:
    network = build_segmenter(make_recipe(dataset, model=TINY_VIT).model, 2)
    return network.encoder, network.head


def run_data(dataset: Path) -> RunData:
    data = open_dataset(dataset)
    return RunData(data, data.split("labelled"), data.split("val"), data, data.split("unlabelled"), "0" * 64)


def test_purity_uses_validation_images_if_unlabelled_images_have_no_masks(dataset: Path) -> None:
    found = audit_pseudo_labels(teacher(dataset), make_recipe(dataset), run_data(dataset))
    assert found.images == 4
    assert (found.truth, found.truth_images) == ("the validation images", 2)
    assert found.mask_ratio == pytest.approx(0.5), "the left half of each image"
    assert found.purity == 1.0
    assert sum(each.share for each in found.classes.values()) == pytest.approx(1)
    assert all(each.mask_ratio is not None and 0 < each.mask_ratio < 1 for each in found.classes.values())


def test_purity_uses_masks_of_the_unlabelled_images_if_they_exist(dataset: Path) -> None:
    """The labelled images serve as unlabelled ones; replacing one mask lowers the purity."""
    data = run_data(dataset)
    unlabelled = data.labelled
    data = dataclasses.replace(data, unlabelled=unlabelled)
    found = audit_pseudo_labels(teacher(dataset), make_recipe(dataset), data)
    assert found.truth.startswith("the masks of the unlabelled images")
    assert found.truth_images == 4
    assert found.purity == 1.0
    mask = unlabelled[0].mask
    assert mask is not None
    mask.write_bytes(unlabelled[1].mask.read_bytes() if unlabelled[1].mask else b"")
    wrong = audit_pseudo_labels(teacher(dataset), make_recipe(dataset), data)
    assert wrong.purity is not None
    assert wrong.purity < 1.0
    assert wrong.mask_ratio == found.mask_ratio, "the mask ratio needs no truth"


def test_purity_is_none_without_true_masks(dataset: Path) -> None:
    found = audit_pseudo_labels(teacher(dataset), make_recipe(dataset), dataclasses.replace(run_data(dataset), val=()))
    assert found.mask_ratio == pytest.approx(0.5)
    assert found.purity is None
    assert all(each.purity is None for each in found.classes.values())


def test_class_that_is_never_predicted_has_no_ratios(dataset: Path) -> None:
    text = (dataset / "classes.toml").read_text()
    (dataset / "classes.toml").write_text(text + '[[classes]]\nname = "unseen"\ncolor = [1, 2, 3]\n')
    network = teacher(dataset)
    network.classes = 3
    found = audit_pseudo_labels(network, make_recipe(dataset), run_data(dataset))
    assert found.classes["unseen"] == ClassAudit(share=0.0, mask_ratio=None, purity=None)


def test_audited_images_are_evenly_spaced(dataset: Path) -> None:
    samples = run_data(dataset).labelled
    assert [sample.name for sample in evenly_spaced(samples, 2)] == ["labelled0", "labelled2"]
    assert evenly_spaced(samples, 9) == samples
    assert evenly_spaced((), 9) == ()
