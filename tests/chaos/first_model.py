"""The data set of the chaos test and its first model: texture mosaics, and a network of a few thousand weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tomli_w

from demo.programs import run_module
from demo.textures import make_textures

SIDE = 64
"""Width and height of an image, in pixels."""
LABELLED, VAL = 8, 8
STEPS = 40
"""Of a run, which then takes about 30 s on two cores, most of it imports of PyTorch."""

NETWORK: dict[str, Any] = {
    "encoder": "vit_tiny_patch16_224",
    "encoder_options": {"depth": 2, "embed_dim": 24, "num_heads": 2, "patch_size": 8},
    "weights": "none",
    "features": 8,
    "projections": [8, 8, 8, 8],
}
DATA: dict[str, Any] = {"crop": [SIDE, SIDE], "scale": [0.8, 1.2]}


def make_first_model(folder: Path) -> Path:
    """Write the data set to `folder`/dataset, and return the bundle of a model that was trained on its labels."""
    dataset, recipe, log = folder / "dataset", folder / "first.toml", folder / "programs.log"
    make_textures(dataset, labelled=LABELLED, unlabelled=0, val=VAL, size=SIDE)
    train = {"steps": 20, "batch_labelled": 4, "lr_encoder": 0.001}
    data = {**DATA, "root": str(dataset.absolute())}
    recipe.write_text(tomli_w.dumps({"method": "supervised", "data": data, "model": NETWORK, "train": train}))
    done = run_module("trainer", "train", str(recipe), "--out", str(folder / "first"), log_file=log, report=_silent)
    arguments = ("export", done["checkpoint"], "--out", str(folder / "bundle"), "--name", "chaos")
    run_module("exporter", *arguments, log_file=log, report=_silent)
    return folder / "bundle"


def write_recipe(folder: Path) -> Path:
    """Write the recipe of the runs: many short steps, and a saved state every fifth."""
    train = {"steps": STEPS, "batch_labelled": 2, "batch_unlabelled": 2, "save_every": 5}
    recipe = folder / "recipe.toml"
    recipe.write_text(tomli_w.dumps({"method": "unimatch_v2", "seed": 0, "train": train}))
    return recipe


def _silent(step: int, steps: int, text: str = "") -> None:
    """Report no progress."""
