"""The images of a run by role, looked at before the first step."""

from pathlib import Path

from trainer.batches import RunData
from trainer.config import Recipe
from trainer.data.dataset import (
    EVERYTHING,
    DatasetError,
    Sample,
    SegmentationDataset,
    check_disjoint,
    fingerprint,
    without,
)
from trainer.data.layouts import open_dataset, open_unlabelled
from trainer.data.scan import check_images


def open_data(recipe: Recipe) -> RunData:
    """Open the data sets of a recipe and look at every image that the run will use.

    Raises:
        DatasetError, TaxonomyError, ImageError: something is missing, unusable, or in two roles at once.
    """
    table = recipe.data
    lists = Path(table.splits) if table.splits else None
    dataset = open_dataset(Path(table.root), table.format, lists)
    labelled = dataset.split(table.labelled)
    val = dataset.split(table.val) if table.val else ()
    other: SegmentationDataset = dataset
    unlabelled: tuple[Sample, ...] = ()
    if recipe.method != "supervised":
        other = open_unlabelled(Path(table.unlabelled_root)) if table.unlabelled_root else dataset
        unlabelled = other.split(table.unlabelled)
        if table.unlabelled == EVERYTHING:
            # All images of the root: those with another role are not meant.
            unlabelled = without(unlabelled, labelled, val)
        if len(unlabelled) < 2:
            raise DatasetError(
                f"{other.root}: {len(unlabelled)} unlabelled image is too few, since CutMix mixes an image with "
                'another one; add images, or set method = "supervised"'
            )
    check_disjoint((table.labelled, labelled), (table.unlabelled, unlabelled), (table.val, val))
    check_images(dataset, labelled=(*labelled, *val), unlabelled=())
    check_images(other, labelled=(), unlabelled=unlabelled)
    return RunData(dataset, labelled, val, other, unlabelled, fingerprint((dataset, labelled), (other, unlabelled)))
