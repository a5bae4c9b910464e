"""The two implementations that the training benchmark compares, behind one interface."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import torch

from tests.benchmarks.plain_data import plain_batches
from tests.benchmarks.plain_step import PlainStep
from tests.benchmarks.synthetic_dataset import CLASSES
from trainer.allocator import keep_freed_memory
from trainer.config import Recipe
from trainer.models.segmenter import build_segmenter
from trainer.processes import Processes
from trainer.recipe_file import recipe_from_dict
from trainer.run_data import open_run_data, training_batches
from trainer.step import training_step
from trainer.training_state import build_state

IMPLEMENTATIONS = ("plain", "ours")
MODELS: dict[str, dict[str, Any]] = {
    "small": {"encoder": "vit_small_patch14_dinov2"},
    "base": {"encoder": "vit_base_patch14_dinov2", "features": 128, "projections": [96, 192, 384, 768]},
    # For a quick run of the benchmark itself.
    "tiny": {
        "encoder": "vit_small_patch14_dinov2",
        "encoder_options": {"depth": 4, "embed_dim": 24, "num_heads": 2},
        "features": 8,
        "projections": [8, 8, 8, 8],
    },
}


class Implementation(Protocol):
    """One implementation of the training step."""

    device: torch.device

    def batches(self) -> Iterator[Any]:
        """Return an endless iterator of batches."""

    def step(self, batch: Any) -> None:
        """Run one optimizer step."""


class OurTrainer:
    """The trainer's step."""

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        self.device, self.recipe = device, recipe
        if device.type == "cpu":
            keep_freed_memory()
        self.processes = Processes(device)
        self.data = open_run_data(recipe)
        self.run = build_state(recipe, self.data.dataset.taxonomy, self.processes)

    def batches(self) -> Iterator[Any]:
        """See `Implementation`."""
        return training_batches(self.recipe, self.data, self.processes, start=self.run.step)

    def step(self, batch: Any) -> None:
        """See `Implementation`."""
        training_step(self.run, self.recipe, batch, self.processes)


class PlainTrainer:
    """A plain implementation of the published step."""

    def __init__(self, root: Path, options: argparse.Namespace, device: torch.device) -> None:
        self.device, self.root, self.options = device, root, options
        self.plain_step = PlainStep(build_segmenter(recipe(root, options).model, CLASSES), device)

    def batches(self) -> Iterator[Any]:
        """See `Implementation`."""
        options, pinned = self.options, self.device.type == "cuda"
        return plain_batches(self.root, options.crop, options.batch, options.plain_workers, pinned=pinned)

    def step(self, batch: Any) -> None:
        """See `Implementation`."""
        self.plain_step.step(*batch)


def build_implementation(name: str, root: Path, options: argparse.Namespace) -> Implementation:
    """Build one of IMPLEMENTATIONS from the command line's options."""
    device = torch.device(options.device)
    if name == "plain":
        return PlainTrainer(root, options, device)
    return OurTrainer(recipe(root, options), device)


def recipe(root: Path, options: argparse.Namespace) -> Recipe:
    """Return the trainer's recipe with the settings of the plain implementation."""
    return recipe_from_dict(
        {
            "method": "unimatch_v2",
            "data": {"root": str(root), "val": "", "crop": [options.crop] * 2, "workers": options.workers},
            "model": MODELS[options.model] | {"weights": "none"},
            "train": {
                "steps": 10**6,
                "batch_labelled": options.batch,
                "batch_unlabelled": options.batch,
                "device": options.device,
                "compile": options.compile,
                "precision": options.precision,
            },
        }
    )


def synchronise(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(device: torch.device) -> int | None:
    """Return the peak memory in bytes, of the GPU or of this process on a CPU; None on Windows."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
