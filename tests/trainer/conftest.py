"""Fixtures: a data set and a recipe that train within a second."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from trainer.config import Recipe
from trainer.recipe_file import recipe_from_dict

TINY_VIT = {
    "encoder": "vit_tiny_patch16_224",
    "encoder_options": {"depth": 2, "embed_dim": 24, "num_heads": 2, "patch_size": 8},
    "weights": "none",
    "features": 8,
    "projections": [8, 8, 8, 8],
}
TINY_CONVNET = {
    "encoder": "efficientnet_lite0",
    "weights": "none",
    "features": 8,
    "projections": [8, 8, 8, 8],
}


def write_dataset(root: Path, *, labelled: int = 4, unlabelled: int = 4, val: int = 2, size: int = 48) -> Path:
    """Write images of two classes that differ in colour: dark left of a random border, bright right of it."""
    rng = np.random.default_rng(0)
    for folder in ("images", "masks", "splits"):
        (root / folder).mkdir(parents=True)
    (root / "classes.toml").write_text(
        '[[classes]]\nname = "dark"\ncolor = [40, 40, 90]\n[[classes]]\nname = "bright"\ncolor = [240, 200, 80]\n'
    )
    for split, count in (("labelled", labelled), ("unlabelled", unlabelled), ("val", val)):
        names = [f"{split}{index}" for index in range(count)]
        (root / "splits" / f"{split}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            mask_HW = np.zeros((size, size), dtype=np.uint8)
            mask_HW[:, int(rng.integers(size // 4, 3 * size // 4)) :] = 1
            noise_HWC = rng.integers(0, 60, (size, size, 3))
            Image.fromarray((mask_HW[..., None] * 180 + noise_HWC).astype(np.uint8)).save(root / f"images/{name}.png")
            if split != "unlabelled":
                Image.fromarray(mask_HW).save(root / f"masks/{name}.png")
    return root


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Threads slow down operations on tiny tensors; subprocesses inherit the variable."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A tiny data set on disk."""
    return write_dataset(tmp_path / "dataset")


def make_recipe(root: Path, method: str = "unimatch_v2", model: dict[str, Any] | None = None, **train: Any) -> Recipe:
    """A recipe of a few steps on the tiny data set."""
    return recipe_from_dict(
        {
            "method": method,
            "data": {"root": str(root), "crop": [32, 32]},
            "model": model or TINY_VIT,
            "train": {
                "steps": 4,
                "batch_labelled": 2,
                "batch_unlabelled": 2,
                "lr_encoder": 1e-3,
                "lr_head_factor": 1.0,
                "device": "cpu",
                "report": False,
            }
            | train,
            "unimatch": {"confidence_threshold": 0.8},
        }
    )
