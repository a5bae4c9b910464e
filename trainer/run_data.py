"""The images of a run: checked before the first step, then loaded as training batches."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trainer.config import Recipe
from trainer.data.batches.loaders import (
    LABELLED_STREAM,
    UNLABELLED_STREAM,
    Crop,
    LabelledBatch,
    LabelledPairs,
    UnlabelledBatch,
    UnlabelledViews,
    load,
    rows_with_partner,
    shuffled,
)
from trainer.data.check.label_check import check_labels
from trainer.data.dataset import (
    EVERYTHING,
    DatasetError,
    Sample,
    SegmentationDataset,
    check_disjoint,
    fingerprint,
    without,
)
from trainer.data.readers.layouts import open_dataset, open_unlabelled
from trainer.data.scan import check_unlabelled
from trainer.processes import Processes

Batches = tuple[LabelledBatch, UnlabelledBatch | None]


@dataclass(frozen=True, slots=True)
class RunData:
    """The data sets and samples of a run, and the sha256 over the training data.

    `unlabelled_dataset` is often `dataset` itself; `unlabelled` is empty for a method that uses none.
    """

    dataset: SegmentationDataset
    labelled: tuple[Sample, ...]
    val: tuple[Sample, ...]
    unlabelled_dataset: SegmentationDataset
    unlabelled: tuple[Sample, ...]
    fingerprint: str


def open_run_data(recipe: Recipe) -> RunData:
    """Open and check the data sets of a recipe. Raises DatasetError, TaxonomyError or ImageError."""
    table = recipe.data
    splits = Path(table.splits) if table.splits else None
    dataset = open_dataset(Path(table.root), table.format, splits, table.value_range)
    labelled = dataset.split(table.labelled)
    val = dataset.split(table.val) if table.val else ()
    other: SegmentationDataset = dataset
    unlabelled: tuple[Sample, ...] = ()
    if recipe.method != "supervised":
        if table.unlabelled_root:
            other = open_unlabelled(Path(table.unlabelled_root), value_range=table.value_range)
        unlabelled = other.split(table.unlabelled)
        if table.unlabelled == EVERYTHING:
            unlabelled = without(unlabelled, labelled, val)
        if len(unlabelled) < 2:
            raise DatasetError(
                f"{other.root}: has {len(unlabelled)} unlabelled image, too few for CutMix, which mixes two; add "
                'images, or set method = "supervised"'
            )
    check_disjoint((table.labelled, labelled), (table.unlabelled, unlabelled), (table.val, val))
    check_labels(dataset, table.labelled, labelled, training=True)
    check_labels(dataset, table.val, val, training=False)
    check_unlabelled(other, unlabelled)
    return RunData(dataset, labelled, val, other, unlabelled, fingerprint((dataset, labelled), (other, unlabelled)))


def training_batches(recipe: Recipe, data: RunData, processes: Processes, *, start: int) -> Iterator[Batches]:
    """Load this process's share of the batches, from step `start` (0-based) to the last.

    Deviation: labelled and unlabelled images are paired at random. The authors shuffle both lists, which they make
    equally long, by the same permutation: an unlabelled image comes with the same labelled one in every epoch.
    """
    crop = Crop(recipe.data.crop, recipe.data.scale, recipe.seed, recipe.inference.long_side)
    order = {"start": start, "steps": recipe.train.steps, "seed": recipe.seed}
    workers, pinned = recipe.data.workers, processes.device.type == "cuda"

    batch = recipe.train.batch_labelled
    draws = shuffled(len(data.labelled), batch, processes.share(batch), stream=LABELLED_STREAM, **order)
    labelled = load(LabelledPairs(data.dataset, data.labelled, crop), draws, workers=workers, pinned=pinned)
    if not data.unlabelled:
        return ((pairs, None) for pairs in labelled)

    batch = recipe.train.batch_unlabelled
    rows = rows_with_partner(processes.share(batch), batch)
    draws = shuffled(len(data.unlabelled), batch, rows, stream=UNLABELLED_STREAM, **order)
    views = UnlabelledViews(data.unlabelled_dataset, data.unlabelled, crop)
    return zip(labelled, load(views, draws, workers=workers, pinned=pinned), strict=True)
