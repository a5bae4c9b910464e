"""Initial weights from a checkpoint (the recipe's `init`), also one with other classes (`init_classes`)."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from unicodedata import normalize

from trainer.checkpoint import CheckpointError, load_into, read_checkpoint
from trainer.config import RecipeError
from trainer.models.class_rows import carry_over
from trainer.models.segmenter import Segmenter
from trainer.taxonomy import Taxonomy

LAST_LAYER = "head.classify.2"
"""The layer with a row per class, in the network's state."""
LEAST_CARRIED = 2
"""With one common class, the softmax over the carried rows would be that class everywhere."""


def load_initial_weights(
    path: Path, model: Segmenter, taxonomy: Taxonomy, init_classes: Mapping[str, Sequence[str]]
) -> str:
    """Load a checkpoint into `model`, with the last layer made for `taxonomy`; returns a sentence on what was done.

    Classes are the same if their names are, or if `init_classes` names those of the checkpoint for a class of
    `taxonomy`. Equal lists give the checkpoint's weights. Raises CheckpointError if the file or the network does not
    fit, and RecipeError if `init_classes` names unknown classes.
    """
    saved, state = read_checkpoint(path)
    sources = _sources(taxonomy.names, saved.names, init_classes)
    if sources == [(index,) for index in range(len(saved))]:
        load_into(model, state, path)
        return f"init: all weights come from {path.name}, with its {len(saved)} classes"
    weight, bias = f"{LAST_LAYER}.weight", f"{LAST_LAYER}.bias"
    if not {weight, bias} <= state.keys():
        raise CheckpointError(f"{path}: has no {LAST_LAYER}; give a checkpoint that this version of the trainer wrote")
    if sum(map(bool, sources)) < LEAST_CARRIED:
        own = model.state_dict()
        load_into(model, state | {name: own[name] for name in (weight, bias)}, path)
        return (
            f"init: the encoder and the decoder come from {path.name}; the last layer starts fresh, since the data set "
            f"and the checkpoint have fewer than {LEAST_CARRIED} classes in common (its classes are "
            f"{', '.join(saved.names)}; init_classes maps classes of other names)"
        )
    rows, biases = carry_over(state[weight], state[bias], sources)
    load_into(model, state | {weight: rows, bias: biases}, path)
    return f"init: the encoder and the decoder come from {path.name}; {_carried(taxonomy.names, saved.names, sources)}"


def _sources(
    names: Sequence[str], saved: Sequence[str], init_classes: Mapping[str, Sequence[str]]
) -> list[tuple[int, ...]]:
    """For each class, its ids in the checkpoint. An entry of `init_classes` counts more than an equal name."""
    mapped = {normalize("NFC", name): [normalize("NFC", old) for old in olds] for name, olds in init_classes.items()}
    _check_known("the data set", mapped, names)
    _check_known("the checkpoint", (old for olds in mapped.values() for old in olds), saved)
    ids = {name: index for index, name in enumerate(saved)}
    return [tuple(ids[old] for old in mapped.get(name, [name]) if old in ids) for name in names]


def _check_known(owner: str, wanted: Iterable[str], known: Sequence[str]) -> None:
    if unknown := sorted(set(wanted) - set(known)):
        raise RecipeError(
            f"init_classes: {owner} has no class {', '.join(unknown)}; its classes are {', '.join(known)}"
        )


def _carried(names: Sequence[str], saved: Sequence[str], sources: Sequence[Sequence[int]]) -> str:
    olds = [" + ".join(saved[index] for index in ids) for ids in sources]
    carried = [name if name == old else f"{name} = {old}" for name, old in zip(names, olds, strict=True) if old]
    parts = [f"carried over: {', '.join(carried)}"]
    if fresh := [name for name, ids in zip(names, sources, strict=True) if not ids]:
        parts.append(f"new: {', '.join(fresh)}")
    used = {index for ids in sources for index in ids}
    if unused := [name for index, name in enumerate(saved) if index not in used]:
        parts.append(f"not used: {', '.join(unused)}")
    return "; ".join(parts)
