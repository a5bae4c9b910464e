"""Resuming: a stopped or killed run continues exactly."""

import copy
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch

from tests.trainer.conftest import TINY_CONVNET, TINY_VIT, make_recipe
from tests.trainer.test_train import losses, run
from trainer import checkpoint
from trainer.__main__ import main
from trainer.commands.train_recipe import STOPPED
from trainer.config import Recipe
from trainer.data.readers.layouts import open_dataset
from trainer.events import Events
from trainer.processes import Processes
from trainer.recipe_file import recipe_from_dict
from trainer.run_error import RunError
from trainer.training_state import build_state, load_training_state, resume_settings, save_training_state


def assert_same_weights(first: Path, second: Path, message: str = "") -> None:
    actual, expected = (checkpoint.load(path).model.state_dict() for path in (first, second))
    assert all(torch.equal(actual[name], expected[name]) for name in actual), message


def run_with_break(recipe: Recipe, out: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Break a run when it reports step 3, and return the events of the resumed run."""

    def progress(_events: Events, at: int, *_: object, **__: object) -> None:
        if at == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Events, "progress", progress)
        with pytest.raises(KeyboardInterrupt):
            run(recipe, out)
    return run(recipe, out, resume=True)


@pytest.mark.parametrize("method", ["supervised", "unimatch_v2"])
def test_two_steps_and_two_resumed_steps_equal_four(
    dataset: Path, tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(dataset, method, TINY_CONVNET, save_every=2)
    whole = losses(run(recipe, tmp_path / "whole"))

    assert losses(run_with_break(recipe, tmp_path / "broken", monkeypatch)) == whole[2:]
    assert_same_weights(tmp_path / "whole/model.safetensors", tmp_path / "broken/model.safetensors")


def test_resume_with_another_recipe_or_other_data_is_rejected(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    recipe = make_recipe(dataset, "supervised")
    state = build_state(recipe, open_dataset(dataset).taxonomy, Processes(torch.device("cpu")))
    save_training_state(state, tmp_path / "run", {"recipe": resume_settings(recipe), "data_fingerprint": "another"})
    with pytest.raises(RunError, match="another data_fingerprint"):
        run(recipe, tmp_path / "run", resume=True)
    with pytest.raises(RunError, match="another recipe"):
        run(make_recipe(dataset, "supervised", steps=9), tmp_path / "run", resume=True)


def test_state_of_an_earlier_version_is_resumed(dataset: Path, tmp_path: Path) -> None:
    recipe = make_recipe(dataset, "supervised")
    state = build_state(recipe, open_dataset(dataset).taxonomy, Processes(torch.device("cpu")))
    settings = resume_settings(recipe)
    identity, older = {"recipe": settings}, copy.deepcopy(settings)
    del older["data"]["range"], older["loss"]["ohem_min_kept_share"]
    older["loss"]["ohem_min_kept"] = 200_000
    save_training_state(state, tmp_path, {"recipe": older})
    load_training_state(state, tmp_path, identity)
    older["loss"]["kind"] = settings["loss"]["kind"] = "ohem"
    save_training_state(state, tmp_path, {"recipe": older})
    with pytest.raises(RunError, match=r"\(loss\.ohem_min_kept_share: 0\.157034, was 1\.0\)"):
        load_training_state(state, tmp_path, identity)


def test_stochastic_depth_is_the_same_after_resume(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = TINY_VIT["encoder_options"] | {"drop_path_rate": 0.5}  # type: ignore[operator]
    recipe = make_recipe(dataset, "supervised", TINY_VIT | {"encoder_options": options}, save_every=2)
    whole = losses(run(recipe, tmp_path / "whole"))
    assert losses(run_with_break(recipe, tmp_path / "broken", monkeypatch)) == whole[2:]


def test_run_stopped_by_sigterm_resumes_to_the_same_model(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a real process and a real signal."""
    recipe = make_recipe(dataset, steps=12).as_dict()
    recipe["data"]["workers"] = 1  # the worker also gets the signal, as the service sends it to the whole process group
    (tmp_path / "recipe.toml").write_text(tomli_w.dumps(recipe))
    command = [sys.executable, "-m", "trainer", "train", str(tmp_path / "recipe.toml"), "--out"]
    with subprocess.Popen(
        [*command, str(tmp_path / "stopped")], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout
        for line in process.stdout:
            if json.loads(line).get("step") == 3:
                os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(timeout=120) == STOPPED
    assert (tmp_path / "stopped/resume.pt").exists()
    assert main(["train", str(tmp_path / "recipe.toml"), "--out", str(tmp_path / "stopped")]) == 1
    assert "--resume" in json.loads(capsys.readouterr().out)["message"]
    run(recipe_from_dict(recipe), tmp_path / "stopped", resume=True)
    run(recipe_from_dict(recipe), tmp_path / "whole")
    assert_same_weights(tmp_path / "stopped/model.safetensors", tmp_path / "whole/model.safetensors")
    assert not (tmp_path / "stopped/resume.pt").exists()


@pytest.mark.slow
def test_killed_run_resumes_to_the_same_weights(dataset: Path, tmp_path: Path) -> None:
    """Kill -9 at a random step, twice; the run resumes from the last saved state."""
    recipe = make_recipe(dataset, steps=14, save_every=3, evaluate_every=4, ema_decay=0.9)
    (tmp_path / "recipe.toml").write_text(tomli_w.dumps(recipe.as_dict()))
    command = [sys.executable, "-m", "trainer", "train", str(tmp_path / "recipe.toml"), "--out"]
    killed = tmp_path / "killed"
    rng = random.Random()  # noqa: S311 (not for cryptography)
    steps = (rng.randint(4, 8), rng.randint(9, 13))
    for at in steps:
        resume = ["--resume"] if (killed / "resume.pt").exists() else []
        with subprocess.Popen([*command, str(killed), *resume], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            for line in process.stdout:
                if json.loads(line).get("step") == at:
                    process.kill()
            assert process.wait(timeout=120) == -signal.SIGKILL
    run(recipe, killed, resume=True)
    run(recipe, tmp_path / "whole")
    for name in ("model.safetensors", "student.safetensors"):
        assert_same_weights(killed / name, tmp_path / "whole" / name, f"killed at {steps}")


def test_saved_event_follows_each_saved_state(dataset: Path, tmp_path: Path) -> None:
    events = run(make_recipe(dataset, "supervised", TINY_CONVNET, steps=5, save_every=2), tmp_path / "run")
    assert [event["step"] for event in events if event["event"] == "saved"] == [2, 4, 5]
