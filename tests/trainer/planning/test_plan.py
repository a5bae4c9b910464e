"""`train DATASET`: which images, which recipe, and what is said about it."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.trainer.conftest import make_recipe, write_dataset
from trainer import checkpoint
from trainer.__main__ import main
from trainer.data.dataset import DatasetError
from trainer.data.readers.layouts import open_dataset
from trainer.models.segmenter import build_segmenter
from trainer.planning.machine import Machine
from trainer.planning.plan import Plan, make_plan
from trainer.planning.roles import Roles, find_roles
from trainer.recipe_file import load_recipe, recipe_from_dict

CPU = Machine("cpu", cores=2)


def names(roles: Roles, role: str) -> list[str]:
    return [sample.name for sample in roles.samples[role]]


def plan_for(root: Path, machine: Machine = CPU, *, reachable: bool = True) -> Plan:
    dataset = open_dataset(root)
    return make_plan(dataset, find_roles(dataset, {}), machine, lambda _: reachable)


def reason(plan: Plan, setting: str) -> str:
    return next(choice.reason for choice in plan.choices if choice.setting == setting)


def test_own_splits_are_used(dataset: Path) -> None:
    roles = find_roles(open_dataset(dataset), {})
    assert roles.names == {"labelled": "labelled", "unlabelled": "unlabelled", "val": "val"}
    assert not roles.drawn


def test_without_splits_masks_decide_and_the_last_images_are_held_out(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data", labelled=10, unlabelled=3, val=0)
    for path in (root / "splits").iterdir():
        path.unlink()
    roles = find_roles(open_dataset(root), {})
    assert names(roles, "val") == ["images/labelled8.png", "images/labelled9.png"]
    assert len(names(roles, "labelled")) == 8
    assert names(roles, "unlabelled") == [f"images/unlabelled{index}.png" for index in range(3)]
    assert "no val split: the last 2 labelled images by name are held out" in roles.reasons["val"]


def test_image_with_the_only_pixels_of_a_class_is_not_held_out(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data", labelled=10, val=0)
    (root / "splits/val.txt").unlink()
    with (root / "classes.toml").open("a") as file:
        file.write('[[classes]]\nname = "rare"\ncolor = [255, 0, 0]\n')
    Image.fromarray(np.full((48, 48), 2, dtype=np.uint8)).save(root / "masks/labelled9.png")
    roles = find_roles(open_dataset(root), {})
    assert names(roles, "val") == ["labelled8"]
    assert "labelled9" in names(roles, "labelled")


def test_few_labels_are_not_held_out(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data", labelled=9, val=0)
    (root / "splits/val.txt").unlink()
    plan = plan_for(root)
    assert recipe_from_dict(plan.table).data.val == ""
    assert plan.table["train"]["keep"] == "last"
    assert "9 labelled images are too few to hold some out: label 10 or more" in reason(plan, "val images")


def test_without_unlabelled_images_the_plan_says_labels_only(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data", unlabelled=0)
    (root / "splits/unlabelled.txt").unlink()
    plan = plan_for(root)
    assert plan.table["method"] == "supervised"
    assert reason(plan, "method").startswith("labels only")


def test_several_possible_splits_are_an_error_that_says_how_to_choose(dataset: Path) -> None:
    for folder in ("1_8", "1_4"):
        (dataset / "splits" / folder).mkdir()
        (dataset / "splits/labelled.txt").rename(dataset / f"splits/{folder}/labelled.txt")
        (dataset / f"splits/{folder}/labelled.txt").write_text("labelled0\nlabelled1\n")
        (dataset / "splits/labelled.txt").write_text("labelled2\n")
    (dataset / "splits/labelled.txt").unlink()
    with pytest.raises(DatasetError, match=r"choose one, for example --set data\.labelled=1_4/labelled"):
        find_roles(open_dataset(dataset), {})
    assert names(find_roles(open_dataset(dataset), {"labelled": "1_8/labelled"}), "labelled")[0] == "labelled0"


def test_data_set_without_masks_is_an_error(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data", labelled=0, val=0)
    for path in (root / "splits").iterdir():
        path.unlink()
    with pytest.raises(DatasetError, match="no image has a mask; label some images"):
        find_roles(open_dataset(root), {})


@pytest.mark.parametrize(
    ("machine", "reachable", "recipe"),
    [
        (CPU, True, "own/cpu.toml"),
        (Machine("cuda", 8, 12.0), True, "own/small_gpu.toml"),
        (Machine("cuda", 8, 80.0), True, "own/small_gpu.toml"),
        (Machine("cuda", 8, 80.0), False, "own/cpu.toml"),
    ],
)
def test_recipe_fits_the_machine(dataset: Path, machine: Machine, reachable: bool, recipe: str) -> None:
    plan = plan_for(dataset, machine, reachable=reachable)
    assert next(choice.value for choice in plan.choices if choice.setting == "recipe") == recipe
    recipe_from_dict(plan.table)


def test_large_images_are_resized_and_small_ones_get_small_crops(tmp_path: Path) -> None:
    small = recipe_from_dict(plan_for(write_dataset(tmp_path / "small", size=100)).table)
    assert (small.inference.long_side, small.data.crop) == (0, (96, 96))
    large = recipe_from_dict(plan_for(write_dataset(tmp_path / "large", size=700)).table)
    assert (large.inference.long_side, large.data.crop) == (320, (192, 192))


def test_more_cores_give_more_steps(dataset: Path) -> None:
    assert plan_for(dataset).table["train"]["steps"] == 400
    assert plan_for(dataset, Machine("cpu", cores=16)).table["train"]["steps"] == 1000


TINY = [
    "model.encoder=vit_tiny_patch16_224",
    "model.encoder_options={depth = 1, embed_dim = 24, num_heads = 2, patch_size = 8}",
    "model.weights=none",
    "model.features=8",
    "model.projections=[8, 8, 8, 8]",
    "train.steps=6",
    "train.report=false",
]
SETS = [word for override in TINY for word in ("--set", override)]


def test_data_set_is_trained_by_one_command_and_its_recipe_repeats_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_dataset(tmp_path / "leaves", labelled=10, val=0)
    (root / "splits/val.txt").unlink()
    monkeypatch.chdir(tmp_path)
    assert main(["train", str(root), *SETS]) == 0
    out, err = capsys.readouterr()
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("leaves-20")
    events = [json.loads(line) for line in out.splitlines()]
    assert [event["event"] for event in events[:2]] == ["plan", "start"]
    choices = {choice["setting"]: choice for choice in events[0]["choices"]}
    assert choices["train.steps"]["value"] == 6
    assert choices["train.steps"]["reason"] == "as you set"
    assert choices["val images"]["value"] == 2
    (estimate,) = (event for event in events if event["event"] == "estimate")
    assert estimate["step"] == 5
    assert estimate["seconds_left"] >= 0
    assert "What will be run" in err
    assert "held out" in " ".join(err.split())
    assert main(["train", str(folder / "recipe.toml"), "--out", "again"]) == 0
    assert (tmp_path / "again/model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_dry_run_writes_the_recipe_only(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(dataset), "--dry-run", "--out", str(tmp_path / "run"), *SETS]) == 0
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["recipe.toml"]
    recipe = tomllib.loads((tmp_path / "run/recipe.toml").read_text())
    assert recipe["data"]["root"] == str(dataset)
    assert capsys.readouterr().out.strip() == str(tmp_path / "run/recipe.toml")


def test_network_is_that_of_the_checkpoint_to_start_from(dataset: Path, tmp_path: Path) -> None:
    recipe = make_recipe(dataset, lr_reference_batch=16)
    taxonomy, model = open_dataset(dataset).taxonomy, build_segmenter(recipe.model, 2)
    path = tmp_path / "model.safetensors"
    checkpoint.save(path, model, taxonomy, metrics={}, recipe=recipe, data_fingerprint="0" * 64)
    assert main(["train", str(dataset), "--dry-run", "--set", f"init={path}", "--out", str(tmp_path / "run")]) == 0
    planned = load_recipe(tmp_path / "run/recipe.toml")
    assert planned.model == recipe.model
    assert planned.train.lr_reference_batch == 16
    assert planned.data.crop == (32, 32)


def test_unlabelled_images_of_another_folder_are_used_beside_drawn_lists(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data", labelled=10, unlabelled=0, val=0)
    for path in (root / "splits").iterdir():
        path.unlink()
    (tmp_path / "photographs").mkdir()
    for index in range(3):
        Image.new("RGB", (48, 48)).save(tmp_path / f"photographs/{index}.png")
    elsewhere = ["--set", f"data.unlabelled_root='{tmp_path / 'photographs'}'"]
    assert main(["train", str(root), "--dry-run", *elsewhere, "--out", str(tmp_path / "run")]) == 0
    recipe = load_recipe(tmp_path / "run/recipe.toml")
    assert (recipe.method, recipe.data.unlabelled, recipe.train.batch_unlabelled) == ("unimatch_v2", "*", 3)
    assert sorted(path.name for path in (tmp_path / "run/splits").iterdir()) == ["labelled.txt", "val.txt"]


def test_all_errors_of_the_data_are_listed_before_the_run(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(2):
        (dataset / f"images/labelled{index}.png").write_bytes(b"no image")
    assert main(["train", str(dataset), "--out", str(tmp_path / "run"), *SETS]) == 1
    err = capsys.readouterr().err
    assert "labelled0.png" in err
    assert "labelled1.png" in err
    assert "has 2 errors; correct them. The first:" in " ".join(err.split())
    assert not (tmp_path / "run").exists()
