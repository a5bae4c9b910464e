"""The batches of a run, from a step on, for one process."""

from collections.abc import Iterator
from dataclasses import dataclass

from trainer.config import Recipe
from trainer.data.dataset import Sample, SegmentationDataset
from trainer.data.loaders import (
    LABELLED_STREAM,
    UNLABELLED_STREAM,
    Crop,
    LabelledBatch,
    LabelledPairs,
    Shuffled,
    UnlabelledBatch,
    UnlabelledViews,
    load,
    rows_with_partner,
)
from trainer.processes import Processes


@dataclass(frozen=True, slots=True)
class RunData:
    """What a run reads.

    Attributes:
        dataset: of the labelled images and of `val`.
        labelled, val: its samples by role.
        unlabelled_dataset: of the unlabelled images; often the same.
        unlabelled: its samples; empty for a method that reads none.
        fingerprint: of all images that the run learns from.
    """

    dataset: SegmentationDataset
    labelled: tuple[Sample, ...]
    val: tuple[Sample, ...]
    unlabelled_dataset: SegmentationDataset
    unlabelled: tuple[Sample, ...]
    fingerprint: str


def batches(
    recipe: Recipe, data: RunData, processes: Processes, *, start: int
) -> Iterator[tuple[LabelledBatch, UnlabelledBatch | None]]:
    """This process's part of the batches of step `start` and those that follow it."""
    crop = Crop(recipe.data.crop, recipe.data.scale, recipe.seed, recipe.inference.long_side)
    draws = {"start": start, "steps": recipe.train.steps, "seed": recipe.seed}
    workers, pinned = recipe.data.workers, processes.device.type == "cuda"

    batch = recipe.train.batch_labelled
    sampler = Shuffled(len(data.labelled), batch, processes.share(batch), stream=LABELLED_STREAM, **draws)
    labelled = load(LabelledPairs(data.dataset, data.labelled, crop), sampler, workers=workers, pinned=pinned)
    if not data.unlabelled:
        return ((pairs, None) for pairs in labelled)

    batch = recipe.train.batch_unlabelled
    rows = rows_with_partner(processes.share(batch), batch)
    sampler = Shuffled(len(data.unlabelled), batch, rows, stream=UNLABELLED_STREAM, **draws)
    views = UnlabelledViews(data.unlabelled_dataset, data.unlabelled, crop)
    return zip(labelled, load(views, sampler, workers=workers, pinned=pinned), strict=True)
