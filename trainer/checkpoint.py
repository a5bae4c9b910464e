"""Checkpoints (safetensors with JSON metadata) and the state for resuming, loaded with `weights_only=True`."""

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

from trainer.atomic_write import atomic_write
from trainer.config import Recipe, RecipeError
from trainer.models.encoders.encoder import EncoderError
from trainer.models.segmenter import Segmenter, build_segmenter
from trainer.recipe_file import recipe_from_dict
from trainer.taxonomy import Taxonomy, TaxonomyError

FORMAT_VERSION = 1
METADATA_KEY = "maskloop"


class CheckpointError(ValueError):
    """A file that is not a readable checkpoint, or does not fit the model or the classes."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A trained model and its metadata.

    Attributes:
        model: on the CPU, in eval mode.
        metrics: `Scores.as_dict` ("miou" 0..1, "per_class", ...) and "split"; empty without a validation split.
        recipe: resolved, as plain values.
        data_fingerprint: sha256 over the training data.
    """

    model: Segmenter
    taxonomy: Taxonomy
    metrics: dict[str, Any]
    recipe: dict[str, Any]
    data_fingerprint: str
    code_version: str

    @property
    def value_range(self) -> tuple[float, float] | None:
        """The recipe's `data.range`, if it is declared."""
        return recipe_from_dict(self.recipe).data.value_range


def save(
    path: Path, model: Segmenter, taxonomy: Taxonomy, *, metrics: dict[str, Any], recipe: Recipe, data_fingerprint: str
) -> None:
    """Write a checkpoint atomically."""
    portable = recipe.as_portable_dict()
    metadata = {
        "format_version": FORMAT_VERSION,
        "model": portable["model"],
        "classes": taxonomy.as_list(),
        "ignore_index": taxonomy.ignore_index,
        "metrics": metrics,
        "recipe": portable,
        "data_fingerprint": data_fingerprint,
        "code_version": code_version(),
    }
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with atomic_write(path) as temporary:
        save_file(state, temporary, metadata={METADATA_KEY: json.dumps(metadata)})


def load(path: Path) -> Checkpoint:
    """Read a checkpoint and build its model. Raises CheckpointError."""
    metadata, state = _read(path)
    try:
        recipe = recipe_from_dict(metadata["recipe"])
        taxonomy = Taxonomy.from_list(metadata["classes"], metadata["ignore_index"])
        model = build_segmenter(recipe.model, len(taxonomy))
        model.load_state_dict(state)
        return Checkpoint(
            model=model.eval(),
            taxonomy=taxonomy,
            **{name: metadata[name] for name in ("metrics", "recipe", "data_fingerprint", "code_version")},
        )
    except (KeyError, RecipeError, TaxonomyError, EncoderError, RuntimeError) as error:
        raise CheckpointError(f"{path}: cannot be read by this version: {error}") from error


def load_weights(path: Path, model: Segmenter) -> None:
    """Load the weights of a checkpoint with the same classes into `model`. Raises CheckpointError if shapes differ."""
    load_into(model, _read(path)[1], path)


def read_checkpoint(path: Path) -> tuple[Taxonomy, dict[str, Tensor]]:
    """Classes and weights of a checkpoint. Raises CheckpointError."""
    metadata, state = _read(path)
    try:
        return Taxonomy.from_list(metadata["classes"], metadata["ignore_index"]), state
    except (KeyError, TaxonomyError) as error:
        raise CheckpointError(f"{path}: its classes cannot be read: {error}; give a run's model.safetensors") from error


def load_into(model: Segmenter, state: Mapping[str, Tensor], path: Path) -> None:
    """Load weights that were read from `path`. Raises CheckpointError if names or shapes differ."""
    try:
        model.load_state_dict(dict(state))
    except RuntimeError as error:
        remedy = "use the [model] table of its training"
        raise CheckpointError(f"{path}: does not fit the recipe's model ({error}); {remedy}") from error


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors and plain values atomically, for `load_state`."""
    with atomic_write(path) as temporary:
        torch.save(dict(state), temporary)


def load_state(path: Path) -> dict[str, Any]:
    """Read a file that `save_state` wrote. Raises CheckpointError."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); start a new run without --resume") from error
    return state


def code_version() -> str:
    """Package version, with the revision in a git checkout of this project: "0.1.0+g1a2b3c4"."""
    version = importlib.metadata.version("maskloop")
    root = Path(__file__).resolve().parents[1]
    try:
        command = ["git", "-C", str(root), "rev-parse", "--show-toplevel", "HEAD"]
        answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return version
    # Inside another project's repository, the revision would be that project's.
    return f"{version}+g{answer[1][:7]}" if Path(answer[0]) == root else version


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            texts = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (safe_open is not iterable)
    except (OSError, SafetensorError) as error:
        remedy = "give a run's model.safetensors"
        raise CheckpointError(f"{path}: cannot be read as a checkpoint ({error}); {remedy}") from error
    if METADATA_KEY not in texts:
        raise CheckpointError(
            f"{path}: is a safetensors file, but not a checkpoint of Maskloop: its metadata has no {METADATA_KEY!r}; "
            "give a run's model.safetensors"
        )
    metadata: dict[str, Any] = json.loads(texts[METADATA_KEY])
    if metadata.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: has format {metadata.get('format_version')}, this version reads {FORMAT_VERSION}; update maskloop"
        )
    return metadata, state
