"""Convert a checkpoint that the authors of UniMatch V2 (arXiv 2410.10777) published.

The file cannot run code when it is unpickled. The network is recognized by the shapes of its weights.
"""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from trainer import checkpoint
from trainer.checkpoint import CheckpointError
from trainer.config import Data, Inference, Loss, Model, Recipe, Train
from trainer.data.classes_file import PUBLIC, read_classes
from trainer.models.segmenter import Segmenter, build_segmenter
from trainer.taxonomy import Taxonomy

Weights = Literal["ema", "student"]


@dataclass(frozen=True, slots=True)
class Published:
    """How the authors trained and evaluated on a data set (section 5.1).

    Attributes:
        classes: name of the class table in trainer/data/classes.
        crop: side of a training crop, in pixels.
        batch: labelled images per step over all four GPUs, and as many unlabelled ones.
        steps: approximate; the number depends on the split, which a checkpoint does not state.
        sliding: evaluate with a sliding window of the crop's size and a stride of 2/3.
    """

    classes: str
    count: int
    crop: int
    batch: int
    steps: int
    sliding: bool = False
    loss: Literal["cross_entropy", "ohem"] = "cross_entropy"


PUBLISHED = {
    "pascal": Published("voc", 21, 518, 16, 39_300),
    "cityscapes": Published("cityscapes", 19, 798, 8, 62_800, sliding=True, loss="ohem"),
    "ade20k": Published("ade20k", 150, 518, 8, 142_000),
    "coco": Published("coco", 81, 518, 16, 147_600),
}
ENCODERS = {
    384: "vit_small_patch14_dinov2",
    768: "vit_base_patch14_dinov2",
    1024: "vit_large_patch14_dinov2",
    1536: "vit_giant_patch14_dinov2",
}
"""Encoder by embedding dimension."""

PREFIXES = {
    "encoder.vit.": "backbone.",
    "head.project.": "head.projects.",
    "head.reassemble.": "head.resize_layers.",
    **{f"head.narrow.{level}.": f"head.scratch.layer{level + 1}_rn." for level in range(4)},
    **{f"head.fuse.{level}.skip.": f"head.scratch.refinenet{level + 1}.resConfUnit1." for level in range(4)},
    **{f"head.fuse.{level}.unit.": f"head.scratch.refinenet{level + 1}.resConfUnit2." for level in range(4)},
    **{f"head.fuse.{level}.out.": f"head.scratch.refinenet{level + 1}.out_conv." for level in range(4)},
    "head.classify.": "head.scratch.output_conv.",
}
"""Prefixes of weight names here, and those of the authors."""
GATED = {"mlp.fc1.": "mlp.w12.", "mlp.fc2.": "mlp.w3."}
"""The same for the giant encoder's gated MLP."""
UNUSED = ("backbone.mask_token", "head.scratch.refinenet4.resConfUnit1.")
"""The authors' weights that no forward pass uses."""
WRAPPER = "module."
"""Prefix that DistributedDataParallel adds to every name."""

_scalar = np.float64(0).__reduce__()[0]
NUMPY_SCALARS: list[Any] = [
    np.dtype,
    np.dtypes.Float64DType,
    (_scalar, "numpy._core.multiarray.scalar"),
    (_scalar, "numpy.core.multiarray.scalar"),  # its name in numpy 1
]
"""The types of the best mIoU in their files, allowed besides torch's own list."""


def import_official(
    file: Path, out: Path, *, dataset: str = "", classes: Path | None = None, weights: Weights = "ema"
) -> Segmenter:
    """Convert the authors' `best.pth` or `latest.pth` to the checkpoint `out`; returns the network in eval mode.

    Give `dataset`, a key of `PUBLISHED`, or `classes`, a classes.toml. "ema" selects the teacher's weights, which the
    paper reports. Raises TaxonomyError, and CheckpointError if the file is not such a checkpoint or has other classes.
    """
    content = _read(file)
    state = _state(file, content, weights)
    taxonomy, _ = read_classes(classes or PUBLIC / f"{PUBLISHED[dataset].classes}.toml")
    recipe = _recipe(dataset, _model(file, state))
    _check_classes(file, state, taxonomy, dataset or str(classes))
    segmenter = build_segmenter(recipe.model, len(taxonomy))
    _fill(file, segmenter, state)
    out.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.save(
        out,
        segmenter,
        taxonomy,
        metrics=_reported(content, weights, len(taxonomy)),
        recipe=recipe,
        data_fingerprint="unknown",
    )
    return segmenter.eval()


def _read(file: Path) -> dict[str, Any]:
    try:
        with torch.serialization.safe_globals(NUMPY_SCALARS):
            # Memory-mapped: the optimizer's moments are not needed.
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except Exception as error:  # a broken pickle can raise any type
        raise CheckpointError(
            f"{file}: cannot be read as tensors and plain values alone ({error}); give a file that the authors' "
            "training wrote, such as best.pth"
        ) from error
    if not isinstance(content, dict) or not {"model", "model_ema"} & content.keys():
        raise CheckpointError(f'{file}: has neither "model" nor "model_ema"; is it a checkpoint of UniMatch V2?')
    return content


def _state(file: Path, content: Mapping[str, Any], weights: Weights) -> dict[str, Tensor]:
    key, other = {"ema": ("model_ema", "--weights student"), "student": ("model", "--weights ema")}[weights]
    if key not in content:
        raise CheckpointError(f'{file}: has no "{key}" (a run on labels only has no teacher); give {other}')
    return {name.removeprefix(WRAPPER): tensor for name, tensor in content[key].items()}


def _model(file: Path, state: Mapping[str, Tensor]) -> Model:
    width = _weight(file, state, "backbone.cls_token").shape[-1]
    if width not in ENCODERS:
        raise CheckpointError(
            f"{file}: backbone.cls_token has {width} channels; the widths of DINOv2 are {', '.join(map(str, ENCODERS))}"
        )
    one, two, three, four = (_weight(file, state, f"head.projects.{level}.weight").shape[0] for level in range(4))
    features = _weight(file, state, "head.scratch.layer1_rn.weight").shape[0]
    return Model(encoder=ENCODERS[width], features=features, projections=(one, two, three, four))


def _weight(file: Path, state: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in state:
        raise CheckpointError(f"{file}: {name} is missing; is it a checkpoint of UniMatch V2 with DINOv2?")
    return state[name]


def _recipe(dataset: str, model: Model) -> Recipe:
    """The authors' settings on that data set; for other data, those on Pascal."""
    known = PUBLISHED[dataset or "pascal"]
    window = known.crop if known.sliding else 0
    return Recipe(
        method="unimatch_v2",
        data=Data(root=dataset or "unknown", crop=(known.crop, known.crop)),
        model=model,
        train=Train(steps=known.steps, batch_labelled=known.batch, batch_unlabelled=known.batch),
        loss=Loss(kind=known.loss),
        inference=Inference(window=(window, window), window_stride=2 / 3),
    )


def _check_classes(file: Path, state: Mapping[str, Tensor], taxonomy: Taxonomy, source: str) -> None:
    found = _weight(file, state, "head.scratch.output_conv.2.weight").shape[0]
    if found == len(taxonomy):
        return
    fitting = [f"--dataset {name}" for name, known in PUBLISHED.items() if known.count == found]
    remedy = " or ".join([*fitting, f"--classes with a classes.toml of {found} classes"])
    raise CheckpointError(f"{file}: has {found} classes, {source} has {len(taxonomy)}; give {remedy}")


def _fill(file: Path, segmenter: Segmenter, state: Mapping[str, Tensor]) -> None:
    gated = "backbone.blocks.0.mlp.w12.weight" in state
    names = {_published_name(name, gated=gated): name for name in segmenter.state_dict()}
    if missing := [name for name in names if name not in state]:
        raise CheckpointError(f"{file}: {len(missing)} weights are missing, the first is {missing[0]}")
    surplus = [name for name in state if name not in names and not name.startswith(UNUSED)]
    if surplus:
        raise CheckpointError(f"{file}: {len(surplus)} weights are unknown, the first is {surplus[0]}")
    try:
        segmenter.load_state_dict({name: state[published] for published, name in names.items()})
    except RuntimeError as error:
        raise CheckpointError(f"{file}: {error}") from error


def _published_name(name: str, *, gated: bool) -> str:
    for own, published in (PREFIXES | (GATED if gated and name.startswith("encoder.") else {})).items():
        name = name.replace(own, published)
    return name


def _reported(content: Mapping[str, Any], weights: Weights, classes: int) -> dict[str, Any]:
    """The run's best mIoU, if the file contains it; as text, since this code did not measure it.

    The authors' mean counts every class.
    """
    key = "previous_best_ema" if weights == "ema" else "previous_best"
    if key not in content:
        return {}
    over = f"over {classes} of {classes} classes"
    return {"reported": f"{float(content[key]):.2f}% mIoU {over}, the best of the run in its authors' evaluation"}
