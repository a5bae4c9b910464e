"""Whole runs: learning, reproducibility, checkpoints and error messages."""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch

from tests.trainer.conftest import TINY_CONVNET, TINY_VIT, make_recipe, write_dataset
from trainer import checkpoint, validation
from trainer.__main__ import main
from trainer.config import Recipe
from trainer.data.dataset import DatasetError
from trainer.data.readers.layouts import open_dataset
from trainer.evaluation.evaluate import evaluate
from trainer.evaluation.metrics import scores
from trainer.events import Events
from trainer.recipe_file import recipe_from_dict
from trainer.run_error import RunError
from trainer.train import train


def run(recipe: Recipe, out: Path, *, resume: bool = False) -> list[dict[str, Any]]:
    """Train and return the events."""
    stream = io.StringIO()
    out.mkdir(parents=True, exist_ok=True)
    with Events(stream=stream) as events:
        train(recipe, out, events, resume=resume)
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def losses(events: list[dict[str, Any]]) -> list[float]:
    return [event["loss"] for event in events if event["event"] == "progress"]


@pytest.mark.parametrize("model", [TINY_VIT, TINY_CONVNET], ids=["vit", "convnet"])
@pytest.mark.parametrize("method", ["supervised", "unimatch_v2"])
def test_two_runs_with_one_seed_have_bit_identical_losses(
    dataset: Path, tmp_path: Path, method: str, model: dict[str, Any]
) -> None:
    recipe = make_recipe(dataset, method, model)
    first, second = (losses(run(recipe, tmp_path / name)) for name in ("first", "second"))
    assert len(first) == 4
    assert first == second


@pytest.mark.parametrize("method", ["supervised", "unimatch_v2"])
def test_run_learns(dataset: Path, tmp_path: Path, method: str) -> None:
    events = run(make_recipe(dataset, method, steps=40), tmp_path / "run")
    assert events[0]["event"] == "start"
    assert events[0]["seed"] == 0
    environment = events[0]["environment"]
    assert (environment["torch"], environment["device"]) == (torch.__version__, "cpu")
    assert environment["maskloop"] == checkpoint.code_version()
    assert all(environment.values())
    assert events[-1]["event"] == "done"
    assert events[-1]["miou"] > 0.9
    loaded = checkpoint.load(Path(events[-1]["checkpoint"]))
    assert loaded.metrics["miou"] == events[-1]["miou"]
    assert loaded.metrics["split"] == "val"
    data = open_dataset(dataset)
    assert evaluate(loaded.model, data, data.split("val")).miou == events[-1]["miou"]


def test_best_weights_are_chosen_by_the_classes_in_the_truth(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At step 2 one stray pixel of a class that `val` lacks halves the mIoU."""
    stray = scores(torch.tensor([[99, 1], [0, 0]]), ("a", "b"), 1)
    clean = dataclasses.replace(stray, miou=0.8, miou_truth_classes=0.8)
    found = iter((stray, clean, clean, stray))
    monkeypatch.setattr("trainer.validation.evaluate", lambda *_, **__: next(found))
    events = run(make_recipe(dataset, evaluate_every=2), tmp_path / "run")
    done = [event for event in events if event["event"] in {"evaluation", "done"}]
    assert stray.miou < clean.miou < stray.miou_truth_classes
    assert done[-2]["step"] == 2
    assert done[-1]["miou"] == stray.miou
    assert (tmp_path / "run/last.safetensors").exists()


def test_checkpoint_contains_no_paths_of_the_machine(dataset: Path, tmp_path: Path) -> None:
    first = run(make_recipe(dataset, "supervised", steps=1), tmp_path / "first")[-1]["checkpoint"]
    table = make_recipe(dataset, "fixmatch", steps=1).as_dict() | {"init": first}
    table["data"] |= {"splits": str(dataset / "splits"), "unlabelled_root": str(dataset)}
    recipe = recipe_from_dict(table)
    second = run(recipe, tmp_path / "second")[-1]["checkpoint"]
    loaded = checkpoint.load(Path(second))
    assert loaded.recipe["data"]["root"] == "dataset"
    assert loaded.recipe["init"] == "model.safetensors"
    assert str(tmp_path).encode() not in Path(second).read_bytes()


def test_run_finishes_without_git(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run(make_recipe(dataset, "supervised", steps=1), tmp_path / "run")[-1]["event"] == "done"


def test_validation_on_training_images_is_rejected(dataset: Path, tmp_path: Path) -> None:
    table = make_recipe(dataset, "supervised").as_dict()
    with pytest.raises(DatasetError, match="in two splits, labelled and labelled"):
        run(recipe_from_dict(table | {"data": table["data"] | {"val": "labelled"}}), tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["data.crop=[30, 32]"], "must be a multiple of 8: 32"),
        (["train.device=gpu"], "use auto, cpu or cuda"),
        (["model.encoder=nothing_like_it"], "timm has no model"),
        (["train=5", "train.steps=3"], "train is not a table"),
        (["init=nowhere.safetensors"], "cannot be read as a checkpoint"),
        (["inference.window=[30, 30]"], "window"),
        (["train.lr_encoder=nan"], "finite"),
        (["seed=-1"], "must be greater than or equal to 0"),
    ],
)
def test_mistake_emits_one_error_event(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: list[str], message: str
) -> None:
    (tmp_path / "recipe.toml").write_text(tomli_w.dumps(make_recipe(dataset).as_dict()))
    overrides = [part for change in changes for part in ("--set", change)]
    assert main(["train", str(tmp_path / "recipe.toml"), "--out", str(tmp_path / "run"), *overrides]) == 1
    event = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert event["event"] == "error"
    assert message in event["message"]


def test_nonfinite_loss_stops_the_run_and_saves_its_batch(dataset: Path, tmp_path: Path) -> None:
    recipe = make_recipe(dataset, "supervised", steps=30, lr_encoder=1e30, log_every=7)
    with pytest.raises(RunError, match=r"not finite at step 2; the batch is in .*nonfinite-0\.pt"):
        run(recipe, tmp_path / "run")
    kept = checkpoint.load_state(tmp_path / "run/nonfinite-0.pt")
    assert kept["step"] == 2
    assert kept["labelled"]["image_BHWC"].shape == (2, 32, 32, 3)


def test_nonfinite_weights_are_not_saved(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not finite"):
        run(make_recipe(dataset, "supervised", steps=1, lr_encoder=1e30), tmp_path / "run")
    assert not (tmp_path / "run/model.safetensors").exists()
    assert not (tmp_path / "run/resume.pt").exists()


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA"), RuntimeError("cannot: can't allocate memory")])
def test_out_of_memory_error_lists_settings_to_change(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: RuntimeError
) -> None:
    def training_step(*_: object) -> None:
        raise error

    monkeypatch.setattr("trainer.train.training_step", training_step)
    with pytest.raises(RunError, match=r"--set train\.accumulate=2 \(it is 1\)"):
        run(make_recipe(dataset), tmp_path / "run")


def test_single_unlabelled_image_is_rejected(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "small", unlabelled=1)
    with pytest.raises(DatasetError, match="has 1 unlabelled image, too few for CutMix"):
        run(make_recipe(root), tmp_path / "run")


def test_evaluate_and_predict_from_the_command_line(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run(make_recipe(dataset, "supervised", steps=2), tmp_path / "run")[-1]["checkpoint"]
    assert main(["evaluate", path, "--data", str(dataset), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["per_class"]) == {"dark", "bright"}
    assert main(["predict", path, str(dataset / "images/val0.png"), "--out", str(tmp_path / "masks")]) == 0
    assert (tmp_path / "masks/val0.png").exists()
    assert (tmp_path / "masks/val0.overlay.jpg").exists()
    assert main(["evaluate", path, "--data", str(dataset), "--long-side", "-1"]) == 1
    assert "inference.long_side = -1: must be greater than or equal to 0" in capsys.readouterr().err
    assert main(["evaluate", str(dataset / "classes.toml"), "--data", str(dataset)]) == 1
    assert "model.safetensors" in capsys.readouterr().err


def test_long_evaluation_reports_that_it_is_at_work(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(dataset, "supervised", steps=1)
    short = [event["event"] for event in run(recipe, tmp_path / "short")]
    assert "evaluating" not in short
    monkeypatch.setattr(validation, "REPORT_EVERY_S", 0.0)
    long = [event for event in run(recipe, tmp_path / "long") if event["event"] == "evaluating"]
    assert long[0] == {"event": "evaluating", "images_done": 1, "images": 2}
