"""Checkpoints: one safetensors file that says what it is, and a second one for what only resuming needs.

Nothing here unpickles: the first is safetensors with JSON in its metadata, the second is loaded with
`weights_only=True`.
"""

import importlib.metadata
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from trainer.config import Recipe, RecipeError
from trainer.models.encoder import EncoderError
from trainer.models.segmenter import Segmenter, build_segmenter
from trainer.recipe_file import recipe_from_dict
from trainer.replacing import replacing
from trainer.taxonomy import Taxonomy, TaxonomyError

FORMAT_VERSION = 1
METADATA_KEY = "maskloop"


class CheckpointError(ValueError):
    """A file that is no checkpoint of ours, or not of this model; the message says which."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A trained model and what is known of it.

    Attributes:
        model: on the CPU, in eval mode.
        taxonomy: its classes.
        metrics: "miou" 0..1, "per_class", "pixel_accuracy", "images", "split"; empty when the run evaluated nothing.
        recipe: the resolved recipe as plain values.
        data_fingerprint: sha256 over the training data.
        code_version: of the code that trained it.
    """

    model: Segmenter
    taxonomy: Taxonomy
    metrics: dict[str, Any]
    recipe: dict[str, Any]
    data_fingerprint: str
    code_version: str


def save(
    path: Path, model: Segmenter, taxonomy: Taxonomy, *, metrics: dict[str, Any], recipe: Recipe, data_fingerprint: str
) -> None:
    """Write a checkpoint; the file appears whole or not at all."""
    about = {
        "format_version": FORMAT_VERSION,
        "model": _portable(recipe)["model"],
        "classes": taxonomy.as_list(),
        "ignore_index": taxonomy.ignore_index,
        "metrics": metrics,
        "recipe": _portable(recipe),
        "data_fingerprint": data_fingerprint,
        "code_version": code_version(),
    }
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with replacing(path) as temporary:
        save_file(state, temporary, metadata={METADATA_KEY: json.dumps(about)})


def load(path: Path) -> Checkpoint:
    """Read a checkpoint and build its model. Raises CheckpointError."""
    about, state = _read(path)
    try:
        recipe = recipe_from_dict(about["recipe"])
        taxonomy = Taxonomy.from_list(about["classes"], about["ignore_index"])
        model = build_segmenter(recipe.model, len(taxonomy))
        model.load_state_dict(state)
        return Checkpoint(
            model.eval(), taxonomy, about["metrics"], about["recipe"], about["data_fingerprint"], about["code_version"]
        )
    except (KeyError, RecipeError, TaxonomyError, EncoderError, RuntimeError) as error:
        raise CheckpointError(f"{path}: is not a checkpoint that this version reads: {error}") from error


def load_weights(path: Path, model: Segmenter, taxonomy: Taxonomy) -> None:
    """Start `model` from a checkpoint's weights. Raises CheckpointError when classes or shapes differ."""
    about, state = _read(path)
    names = tuple(entry["name"] for entry in about["classes"])
    if names != taxonomy.names:
        raise CheckpointError(
            f"{path}: was trained on the classes {', '.join(names)}, the data set has {', '.join(taxonomy.names)}; "
            'the lists must be equal, in order, or set init = "" to start afresh'
        )
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path}: does not fit the recipe's model ({error}); use the [model] table that it was trained with"
        ) from error


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write what resuming needs: student, teacher, optimizer, step. Atomic."""
    with replacing(path) as temporary:
        torch.save(dict(state), temporary)


def load_state(path: Path) -> dict[str, Any]:
    """Read what `save_state` wrote. Raises CheckpointError."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); start the run anew without --resume") from error
    return state


def code_version() -> str:
    """Package version and, in a git checkout of ours, the revision: "0.1.0+g1a2b3c4"."""
    version = importlib.metadata.version("maskloop")
    root = Path(__file__).resolve().parents[1]
    try:
        command = ["git", "-C", str(root), "rev-parse", "--show-toplevel", "HEAD"]
        answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return version  # no git, or no checkout
    # Installed inside somebody else's repository, the revision would be theirs.
    return f"{version}+g{answer[1][:7]}" if Path(answer[0]) == root else version


def _portable(recipe: Recipe) -> dict[str, Any]:
    """The recipe as it may leave the machine: folders and files by their last name alone."""
    table = recipe.as_dict()
    table["init"] = Path(recipe.init).name
    for name in ("root", "splits", "unlabelled_root"):
        table["data"][name] = Path(table["data"][name]).name
    table["model"]["weights"] = Path(recipe.model.weights).name
    return table


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (safe_open is no dict)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: cannot be read as a checkpoint ({error}); give a run's model.safetensors"
        ) from error
    if METADATA_KEY not in metadata:
        raise CheckpointError(
            f"{path}: is a safetensors file, but no checkpoint of ours: its metadata has no {METADATA_KEY!r}"
        )
    about: dict[str, Any] = json.loads(metadata[METADATA_KEY])
    if about.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: has format {about.get('format_version')}, this version reads {FORMAT_VERSION}; update maskloop"
        )
    return about, state
