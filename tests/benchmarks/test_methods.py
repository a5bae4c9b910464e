"""The comparison of methods: its table worked out by hand, its recipes, and one run."""

import json
from pathlib import Path

import pytest

from tests.benchmarks.methods import arguments, is_finished, main, run_specs
from tests.benchmarks.methods_table import Result, gain, table
from tests.trainer.conftest import write_dataset
from trainer.config import RecipeError
from trainer.recipe_file import load_recipe


def result(method: str, seed: int, best: float, last: float) -> Result:
    return Result("1_16", method, seed, best, last, None, {}, "3 of 3 classes", 90.0)


RESULTS = [
    result("supervised", 0, 0.40, 0.38),
    result("supervised", 1, 0.44, 0.40),
    result("unimatch_v2", 0, 0.45, 0.45),
    result("unimatch_v2", 1, 0.47, 0.47),
]


def test_gain_is_paired_by_seed() -> None:
    # 5 and 3 points: mean 4, standard deviation sqrt(2).
    assert gain(RESULTS, "unimatch_v2", "best") == pytest.approx((4, 2**0.5))


def test_table_has_mean_and_standard_deviation() -> None:
    rows = table(RESULTS).splitlines()
    assert rows[0].startswith("Split 1_16, mIoU over 3 of 3 classes in percent")
    assert rows[-2] == "| labels only | 2 | 42.0 ± 2.8 | 39.0 ± 1.4 |  |  |  | 1.5 |"
    assert rows[-1] == "| UniMatch V2 | 2 | 46.0 ± 1.4 | 46.0 ± 1.4 |  | +4.0 ± 1.4 | +7.0 ± 0.0 | 1.5 |"


def test_recipes_differ_only_in_the_method_and_supervised_in_its_batch(tmp_path: Path) -> None:
    specs = run_specs(arguments(["--data", str(tmp_path), "--out", str(tmp_path), "--seeds", "3", "--splits", "1_8"]))
    options = arguments(["--data", str(tmp_path), "--out", str(tmp_path)])
    recipes = [load_recipe(options.recipe, list(spec.overrides)) for spec in specs]
    assert [recipe.method for recipe in recipes] == ["supervised", "fixmatch", "unimatch_v1", "unimatch_v2"]
    assert [recipe.train.batch_labelled for recipe in recipes] == [8, 4, 4, 4]
    assert len({(recipe.train.steps, recipe.train.lr_encoder, recipe.seed) for recipe in recipes}) == 1
    assert {recipe.data.unlabelled for recipe in recipes} == {"1_8/unlabelled"}


def test_thresholds_are_compared_for_methods_that_have_one(tmp_path: Path) -> None:
    given = ["--data", str(tmp_path), "--out", str(tmp_path), "--seeds", "0", "--splits", "1_8"]
    options = arguments([*given, "--methods", "supervised", "unimatch_v2", "--thresholds", "0.95", "auto"])
    specs = run_specs(options)
    assert [spec.variant for spec in specs] == [
        "supervised",
        "unimatch_v2, threshold 0.95",
        "unimatch_v2, threshold auto",
    ]
    recipes = [load_recipe(options.recipe, list(spec.overrides)) for spec in specs[1:]]
    assert [recipe.unimatch.confidence_threshold for recipe in recipes] == [0.95, "auto"]
    assert len({spec.folder(tmp_path) for spec in specs}) == 3


@pytest.mark.slow
def test_smoke_run_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, out = write_dataset(tmp_path / "data"), tmp_path / "out"
    (data / "splits/1_16").mkdir()
    for role in ("labelled", "unlabelled"):
        (data / f"splits/{role}.txt").rename(data / f"splits/1_16/{role}.txt")
    command = ["methods", "--data", str(data), "--out", str(out), "--splits", "1_16", "--seeds", "0", "--steps", "2"]
    sets = ["data.crop=[32, 32]", "inference.long_side=32", "train.batch_labelled=2", "train.batch_unlabelled=2"]
    command += ["--methods", "supervised", *(word for value in sets for word in ("--set", value))]
    monkeypatch.setattr("sys.argv", command)
    assert main() == 0
    folder = out / "1_16/supervised/seed0"
    first = (folder / "model.safetensors").stat().st_mtime_ns
    assert main() == 0
    assert (folder / "model.safetensors").stat().st_mtime_ns == first
    (run,) = json.loads((out / "results.json").read_text())["runs"]
    assert 0 <= run["last"] <= run["best"] <= 1
    assert "labels only" in (out / "table.md").read_text()
    assert run["over"] == "2 of 2 classes"

    other = run_specs(arguments([*command[1:], "--set", "train.lr_encoder=0.5"]))
    with pytest.raises(RecipeError, match="another recipe"):
        is_finished(folder, load_recipe(arguments(command[1:]).recipe, list(other[0].overrides)))
