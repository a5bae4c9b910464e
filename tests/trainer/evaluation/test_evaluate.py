"""Sliding windows, evaluation of a split, and the command line of `evaluate`."""

# N images, C channels, K classes, H W pixels

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.trainer.conftest import TINY_CONVNET, TINY_VIT, make_recipe
from trainer import checkpoint
from trainer.__main__ import main
from trainer.config import Inference, RecipeError
from trainer.data.readers.layouts import open_dataset
from trainer.evaluation import sliding
from trainer.evaluation.evaluate import evaluate
from trainer.evaluation.inference import most_likely
from trainer.evaluation.sliding import sliding_bands, sliding_probabilities
from trainer.initial_weights import load_initial_weights
from trainer.models.predictor import MaskPredictor
from trainer.models.segmenter import Segmenter, build_segmenter
from trainer.recipe_file import recipe_from_dict


def tiny(model: dict[str, Any] = TINY_VIT, classes: int = 2) -> Segmenter:
    torch.manual_seed(0)
    recipe = make_recipe(Path("nowhere"), model=model)
    segmenter = build_segmenter(recipe.model, classes).eval()
    # A new head predicts nearly the same everywhere; scaling it up makes both classes occur.
    for parameter in segmenter.head.parameters():
        parameter.data.mul_(2)
    return segmenter


def three_classes(image_NCHW: Tensor) -> Tensor:
    """A network without receptive field: the logits of a pixel are its colours."""
    return 4 * image_NCHW


@given(
    height=st.integers(1, 40), width=st.integers(1, 40), window=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    stride=st.floats(0.05, 1.0), images=st.integers(1, 2),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_windows_equal_the_whole_image_for_a_pixelwise_network(
    height: int, width: int, window: tuple[int, int], stride: float, images: int
) -> None:
    image_NCHW = torch.rand((images, 3, height, width), generator=torch.Generator().manual_seed(height))
    found_NKHW = sliding_probabilities(three_classes, image_NCHW, window, stride)
    torch.testing.assert_close(found_NKHW, three_classes(image_NCHW).softmax(dim=1))


def position_dependent(image_NCHW: Tensor) -> Tensor:
    """A network whose logits depend on the position in the window."""
    height, width = image_NCHW.shape[2:]
    slope_HW = torch.linspace(-1, 1, height)[:, None] * torch.linspace(-2, 1, width)
    return three_classes(image_NCHW) * slope_HW


def naive_sliding(image_NCHW: Tensor, side: int, step: int) -> Tensor:
    """Reference: the paper's rule, window by window, on an image at least as large as a window."""
    height, width = image_NCHW.shape[2:]
    summed, counts = torch.zeros_like(image_NCHW), torch.zeros((height, width))
    for top in sorted({min(top, height - side) for top in range(0, height, step)}):
        for left in sorted({min(left, width - side) for left in range(0, width, step)}):
            region = (..., slice(top, top + side), slice(left, left + side))
            summed[region] += position_dependent(image_NCHW[region]).softmax(dim=1)
            counts[region] += 1
    return summed / counts


@pytest.mark.parametrize("size", [(12, 12), (25, 12), (23, 41), (30, 30)])
def test_overlapping_windows_are_averaged_as_in_the_paper(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    image_NCHW = torch.rand((1, 3, *size), generator=torch.Generator().manual_seed(0))
    expected_NKHW = naive_sliding(image_NCHW, 12, 8)
    torch.testing.assert_close(sliding_probabilities(position_dependent, image_NCHW, (12, 12), 2 / 3), expected_NKHW)
    monkeypatch.setattr(sliding, "MAX_LOGITS", 1)
    torch.testing.assert_close(sliding_probabilities(position_dependent, image_NCHW, (12, 12), 2 / 3), expected_NKHW)


def test_image_smaller_than_the_window_is_padded_like_a_training_crop() -> None:
    image_NCHW = torch.rand((1, 3, 5, 20), generator=torch.Generator().manual_seed(0))
    padded_NCHW = F.pad(image_NCHW, (0, 0, 0, 7))
    found_NKHW = sliding_probabilities(position_dependent, image_NCHW, (12, 12), 2 / 3)
    torch.testing.assert_close(found_NKHW, naive_sliding(padded_NCHW, 12, 8)[:, :, :5])


def test_bands_cover_the_image_and_windows_are_batched() -> None:
    batches = []

    def network(windows_nChw: Tensor) -> Tensor:
        batches.append(windows_nChw.shape[0])
        return windows_nChw

    bands = list(sliding_bands(network, torch.rand((1, 3, 50, 100)), (20, 20), 0.5))
    assert [band_NKbW.shape[2] for band_NKbW in bands] == [10, 10, 10, 20]
    assert batches == [1, 8] * 4, "9 windows per row: the first shows the size, the others form one batch"


@pytest.mark.parametrize("window", [(20, 24), (24, 0), (4, 4)])
def test_window_that_does_not_fit_the_encoder_is_rejected(window: tuple[int, int]) -> None:
    with pytest.raises(RecipeError, match=r"inference\.window has a side of .* a multiple of 8: set "):
        most_likely(tiny(), torch.zeros((1, 30, 30, 3), dtype=torch.uint8), Inference(window=window))


@pytest.mark.parametrize("rule", [Inference(), Inference(long_side=40)])
def test_whole_image_equals_the_exported_mask_predictor(rule: Inference) -> None:
    segmenter, image_NHWC = tiny(), torch.randint(0, 256, (2, 33, 61, 3), dtype=torch.uint8)
    expected_mask, expected_confidence, _ = MaskPredictor(segmenter, rule.long_side)(image_NHWC)
    mask_NHW, confidence_NHW = most_likely(segmenter, image_NHWC, rule)
    assert torch.equal(mask_NHW, expected_mask.long())
    assert torch.equal((confidence_NHW * 255).round().to(torch.uint8), expected_confidence)


@pytest.mark.parametrize("long_side", [0, 96, 20])
@pytest.mark.parametrize("size", [(70, 91), (10, 12)])
def test_windows_accept_images_of_any_size(size: tuple[int, int], long_side: int) -> None:
    image_NHWC = torch.randint(0, 256, (1, *size, 3), dtype=torch.uint8)
    rule = Inference(window=(32, 40), long_side=long_side)
    mask_NHW, confidence_NHW = most_likely(tiny(), image_NHWC, rule)
    assert mask_NHW.shape == confidence_NHW.shape == (1, *size)
    assert 0 < confidence_NHW.min() <= confidence_NHW.max() <= 1


@pytest.mark.parametrize("rule", [Inference(), Inference(window=(24, 24))], ids=["whole", "window"])
@pytest.mark.parametrize("workers", [0, 1])
def test_scores_equal_those_of_the_masks_image_by_image(dataset: Path, rule: Inference, workers: int) -> None:
    data, segmenter = open_dataset(dataset), tiny()
    samples = data.split("labelled")
    expected = np.zeros((2, 2), dtype=np.int64)
    for sample in samples:
        image_HWC, truth_HW = data.read_pair(sample)
        mask_HW = most_likely(segmenter, torch.from_numpy(image_HWC.copy())[None], rule)[0][0].numpy()
        np.add.at(expected, (truth_HW, mask_HW), 1)
    found = evaluate(segmenter, data, samples, inference=rule, workers=workers)
    assert np.array(found.confusion).tolist() == expected.tolist()
    assert found.images == 4
    assert found.ece is not None
    assert 0 <= found.ece <= 1


def test_sharded_evaluation_equals_a_single_process(dataset: Path) -> None:
    """Three processes share four images: each image is counted once, and the sums equal those of one process."""
    data, segmenter = open_dataset(dataset), tiny()
    samples = data.split("labelled")
    single = evaluate(segmenter, data, samples)
    parts: list[Tensor] = []

    def collect(counts: Tensor) -> Tensor:
        parts.append(counts)
        return counts

    images = [evaluate(segmenter, data, samples, shard=(rank, 3), total=collect).images for rank in range(3)]
    assert images == [2, 1, 1]
    assert len(parts) == 3, "one reduction per process"
    together = evaluate(segmenter, data, samples, shard=(0, 3), total=lambda _: torch.stack(parts).sum(0))
    assert together.confusion == single.confusion
    assert together.boundary_per_class == single.boundary_per_class
    assert together.ece == pytest.approx(single.ece, abs=1e-12)
    assert together.images == 4


def test_process_without_images_returns_empty_scores(dataset: Path) -> None:
    data = open_dataset(dataset)
    assert evaluate(tiny(), data, data.split("val"), shard=(2, 3)).images == 0


def test_evaluation_without_full_skips_boundary_iou_and_calibration(dataset: Path) -> None:
    data = open_dataset(dataset)
    calls: list[tuple[int, int]] = []
    cheap = evaluate(tiny(), data, data.split("val"), full=False, progress=lambda done, of: calls.append((done, of)))
    whole = evaluate(tiny(), data, data.split("val"))
    assert (cheap.miou, cheap.confusion) == (whole.miou, whole.confusion)
    assert cheap.boundary_iou is cheap.ece is None
    assert calls == [(1, 2), (2, 2)]


def test_evaluation_uses_eval_mode_and_restores_the_modes(dataset: Path) -> None:
    data, segmenter = open_dataset(dataset), tiny(TINY_CONVNET)
    expected = evaluate(segmenter, data, data.split("val"))
    segmenter.train()
    segmenter.encoder.eval()
    before = {name: tensor.clone() for name, tensor in segmenter.state_dict().items()}
    assert evaluate(segmenter, data, data.split("val")) == expected
    assert segmenter.head.training
    assert not segmenter.encoder.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in segmenter.state_dict().items())


def save(path: Path, dataset: Path, **inference: Any) -> Path:
    table = make_recipe(dataset).as_dict()
    recipe = recipe_from_dict(table | {"inference": table["inference"] | inference})
    taxonomy = open_dataset(dataset).taxonomy
    checkpoint.save(path, tiny(classes=len(taxonomy)), taxonomy, metrics={}, recipe=recipe, data_fingerprint="0" * 64)
    return path


def test_evaluate_command_prints_a_table_and_writes_json(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (dataset / "classes.toml").write_text(
        (dataset / "classes.toml").read_text() + '[[classes]]\nname = "unseen"\ncolor = [1, 2, 3]\n'
    )
    with pytest.raises(SystemExit):
        main(["evaluate", "--data", str(dataset)])
    path = save(tmp_path / "model.safetensors", dataset)
    capsys.readouterr()
    command = [
        "evaluate",
        str(path),
        "--data",
        str(dataset),
        "--split",
        "labelled",
        "--workers",
        "1",
        "--device",
        "cpu",
    ]
    assert main([*command, "--json", str(tmp_path / "scores.json")]) == 0
    lines = capsys.readouterr().out
    table = json.loads((tmp_path / "scores.json").read_text())
    for word in (
        "dark",
        "unseen",
        "predicted only",
        "mIoU",
        "pixel accuracy",
        "boundary IoU",
        "calibration error",
        "4 images",
    ):
        assert word in lines
    assert f"{table['miou']:.4f}" in lines
    assert "over 3 of 3 classes" in lines
    assert "over 2 of 3 classes" in lines, "in the truth"
    assert table["miou_over"] == "3 of 3 classes"
    assert table["per_class"]["unseen"] == 0.0
    assert table["split"] == "labelled"
    assert np.array(table["confusion"]).shape == (3, 3)


def test_class_names_of_another_unicode_form_are_the_checkpoints(dataset: Path, tmp_path: Path) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    text = (dataset / "classes.toml").read_text()
    (dataset / "classes.toml").write_text(text.replace("dark", composed), encoding="utf-8")
    path, recipe, taxonomy = tmp_path / "model.safetensors", make_recipe(dataset), open_dataset(dataset).taxonomy
    taxonomy = dataclasses.replace(taxonomy, names=(decomposed, "bright"))
    checkpoint.save(path, tiny(), taxonomy, metrics={}, recipe=recipe, data_fingerprint="0" * 64)
    assert main(["evaluate", str(path), "--data", str(dataset)]) == 0
    assert "all weights" in load_initial_weights(path, tiny(), open_dataset(dataset).taxonomy, {})


def test_command_line_overrides_the_inference_rule_of_the_recipe(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(tmp_path / "model.safetensors", dataset, window=[24, 24])
    data = open_dataset(dataset)
    rules = {
        (): Inference(window=(24, 24)),
        ("--whole",): Inference(),
        ("--window", "16x32"): Inference(window=(16, 32)),
        ("--whole", "--long-side", "24"): Inference(long_side=24),
    }
    seen = set()
    for arguments, rule in rules.items():
        assert main(["evaluate", str(path), "--data", str(dataset), "--json", *arguments]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["ece"] == evaluate(tiny(), data, data.split("val"), inference=rule).ece
        seen.add(found["ece"])
    assert len(seen) == len(rules), "the rules must differ for the comparison to mean anything"
    assert main(["evaluate", str(path), "--data", str(dataset), "--window", "20"]) == 1
    assert "needs a multiple of 8" in capsys.readouterr().err


def test_run_folder_compares_its_checkpoints(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(tmp_path), "--data", str(dataset)]) == 1
    assert "contains no checkpoint" in capsys.readouterr().err
    for name in ("student", "model", "last"):
        save(tmp_path / f"{name}.safetensors", dataset)
    assert main(["evaluate", str(tmp_path), "--data", str(dataset)]) == 0
    head = capsys.readouterr().out.splitlines()[0]
    assert head.split() == ["class", "model", "last", "student"]
    assert main(["evaluate", str(tmp_path), "--data", str(dataset), "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert [Path(each["checkpoint"]).stem for each in table["checkpoints"]] == ["model", "last", "student"]
