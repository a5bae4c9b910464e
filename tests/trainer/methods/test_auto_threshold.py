"""confidence_threshold = "auto": the reliability on held-out labels chooses the threshold."""

import dataclasses
import json
import os
import signal
from pathlib import Path

import pytest
import torch

from tests.trainer.conftest import make_recipe
from tests.trainer.test_resume import assert_same_weights
from tests.trainer.test_train import run
from trainer.config import Recipe
from trainer.data.readers.layouts import open_dataset
from trainer.evaluation.evaluate import evaluate
from trainer.events import Events
from trainer.methods.class_thresholds import ClassThresholds
from trainer.methods.pseudo_labels import PseudoLabels
from trainer.models.segmenter import build_segmenter
from trainer.recipe_file import recipe_from_dict
from trainer.stop_signals import Stopped


def auto(recipe: Recipe) -> Recipe:
    return recipe_from_dict(recipe.as_dict() | {"unimatch": {"confidence_threshold": "auto"}})


def halved(*, auto: bool) -> ClassThresholds:
    """Thresholds of a teacher with the confidence 0.5 for both classes, which are equally frequent."""
    thresholds = ClassThresholds(2, auto=auto)
    half_BHW = torch.full((1, 1, 2), 0.5)
    pseudo = PseudoLabels(torch.tensor([[[0, 1]]]), half_BHW, half_BHW > 0)
    thresholds.update(pseudo, torch.tensor([[1.0, 1.0]]), total=lambda tensor: tensor)
    return thresholds


@pytest.mark.parametrize(
    ("reliability", "fixed"), [(0.95, True), (1.0, True), (0.949, False), (0.0, False), (None, False)]
)
def test_reliability_decides(reliability: float | None, fixed: bool) -> None:
    thresholds = halved(auto=True)
    label_BHW = torch.tensor([[[0, 1]]])
    assert thresholds(label_BHW, 0.95).flatten().tolist() == pytest.approx([0.95, 0.95]), "before the first evaluation"
    thresholds.decide(reliability, 0.95)
    expected = 0.95 if fixed else 0.5
    assert thresholds(label_BHW, 0.95).flatten().tolist() == pytest.approx([expected, expected])


def test_adaptive_thresholds_of_the_recipe_are_not_decided() -> None:
    thresholds = halved(auto=False)
    thresholds.decide(1.0, 0.95)
    assert thresholds(torch.tensor([[[0]]]), 0.95).item() == pytest.approx(0.5)
    assert "fixed" not in thresholds.state_dict()


def test_reliability_is_the_share_of_right_pixels_among_the_confident_ones(dataset: Path) -> None:
    torch.manual_seed(0)
    data, model = open_dataset(dataset), build_segmenter(make_recipe(dataset).model, 2)
    everything = evaluate(model, data, data.split("val"), full=False, threshold=0.0)
    assert everything.reliability == pytest.approx(everything.pixel_accuracy)
    assert everything.confident == 2 * 48 * 48
    nothing = evaluate(model, data, data.split("val"), full=False, threshold=1.1)
    assert (nothing.confident, nothing.reliability) == (0, None)


def test_stopped_run_resumes_with_the_decision_that_was_due(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is stopped at step 2, where an evaluation is due, which makes the thresholds adaptive."""
    recipe = auto(make_recipe(dataset, "fixmatch", evaluate_every=2))
    whole = run(recipe, tmp_path / "whole")
    notices = [event["message"] for event in whole if event["event"] == "notice"]
    (notice,) = notices
    assert notice.startswith("no pixel of `val` with a confidence of 0.95 or more is right: from now on, a threshold")
    confident = {event["step"]: event["confident"] for event in whole if event["event"] == "progress"}
    assert confident[2] == 0 < confident[3]

    def progress(_events: Events, at: int, *_: object, **__: object) -> None:
        if at == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Events, "progress", progress)
        with pytest.raises(Stopped, match="step 2"):
            run(recipe, tmp_path / "stopped")
    resumed = run(recipe, tmp_path / "stopped", resume=True)
    steps = [event for event in resumed if event["event"] in {"progress", "evaluation"}]
    assert steps == [event for event in whole if event["event"] in {"progress", "evaluation"}][2:]
    assert_same_weights(tmp_path / "whole/model.safetensors", tmp_path / "stopped/model.safetensors")


def test_auto_without_an_evaluation_says_that_it_is_fixed(dataset: Path, tmp_path: Path) -> None:
    events = run(auto(make_recipe(dataset, "fixmatch", steps=1)), tmp_path / "run")
    assert '"auto" is 0.95 in this run' in next(event["message"] for event in events if event["event"] == "notice")


def test_wrong_value_is_an_error_that_names_the_setting(dataset: Path) -> None:
    table = make_recipe(dataset).as_dict()
    with pytest.raises(ValueError, match=r"unimatch\.confidence_threshold = 'automatic': must be 'auto'"):
        recipe_from_dict(table | {"unimatch": {"confidence_threshold": "automatic"}})
    assert json.loads(json.dumps(auto(make_recipe(dataset)).as_dict()))["unimatch"]["confidence_threshold"] == "auto"
    assert dataclasses.replace(auto(make_recipe(dataset))).unimatch.fixed_threshold == 0.95
