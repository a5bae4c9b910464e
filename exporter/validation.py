"""Measure graphs on the validation images of a data set: agreement with PyTorch, and mIoU."""

# H W pixels

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from exporter.manifest import Validation
from exporter.probe import Bytes, Ids, Predict
from trainer.data.dataset import DatasetError, Sample, without
from trainer.data.readers.layouts import open_dataset
from trainer.evaluation.metrics import Scores, confusion, scores
from trainer.taxonomy import Taxonomy

MAX_VALIDATION_IMAGES = 200
MAX_CALIBRATION_IMAGES = 64


class DataError(ValueError):
    """A data set that does not fit the checkpoint."""


class Validator:
    """The validation images of a data set, with PyTorch's masks for them and their `scores`."""

    def __init__(
        self,
        root: Path,
        taxonomy: Taxonomy,
        data: Mapping[str, Any],
        predict: Predict,
        value_range: tuple[float, float] | None = None,
        *,
        at_work: Callable[[], object] = bool,
    ) -> None:
        """Open the data set in `root` and run `predict`, PyTorch in fp32, on its validation images.

        `taxonomy` is the checkpoint's; `data` is the recipe's table with the format and the names of the splits.
        `at_work` is called after each image.

        Raises DataError for other classes, DatasetError or ImageError if the data set cannot be read.
        """
        self._at_work = at_work
        lists = Path(data["splits"]) if data.get("splits") else None
        self._dataset, self._data = open_dataset(root, data.get("format", "auto"), lists, value_range), data
        if self._dataset.taxonomy.names != taxonomy.names:
            raise DataError(f"{root}: its classes are not the checkpoint's; give the data set it was trained on")
        self._val_split = self._dataset.split(data.get("val") or "val")
        self._samples = _evenly_spaced(self._val_split, MAX_VALIDATION_IMAGES)
        self._masks, self.scores = self._masks_and_scores(predict)

    @property
    def images(self) -> int:
        """Number of validation images."""
        return len(self._samples)

    def measure(self, predict: Predict) -> Validation:
        """Compare a graph's masks with PyTorch's and with the labels."""
        masks, found = self._masks_and_scores(predict)
        equal = sum(int((a_HW == b_HW).sum()) for a_HW, b_HW in zip(masks, self._masks, strict=True))
        total = sum(mask_HW.size for mask_HW in masks)
        return Validation(
            images=self.images,
            mask=equal / total,
            miou=found.miou,
            classes=sum(iou is not None for iou in found.per_class.values()),
            # Over the same classes for both: one pixel of an absent class would lower a graph's mIoU by 1 / classes.
            miou_lost=self.scores.miou_truth_classes - found.miou_truth_classes,
        )

    def calibration_images(self) -> list[Bytes]:
        """Training images, uint8 [H,W,3]; if the data set has none, validation images."""
        samples: list[Sample] = []
        for name in (self._data.get("labelled"), self._data.get("unlabelled")):
            # Unlabelled images may be in another folder; the labelled ones are enough.
            with suppress(DatasetError):
                samples += self._dataset.split(name) if name else ()
        training = without(dict.fromkeys(samples), self._val_split)
        return [self._dataset.read(each) for each in _evenly_spaced(training or self._samples, MAX_CALIBRATION_IMAGES)]

    def _masks_and_scores(self, predict: Predict) -> tuple[list[Ids], Scores]:
        taxonomy, masks = self._dataset.taxonomy, []
        counts_KK = torch.zeros((len(taxonomy), len(taxonomy)), dtype=torch.int64)
        for sample in self._samples:
            image_HW3, label_HW = self._dataset.read_pair(sample)
            mask_HW = predict(image_HW3[None])[0][0]
            masks.append(mask_HW)
            self._at_work()
            ids_HW, label_ids_HW = torch.from_numpy(mask_HW.astype(np.int64)), torch.from_numpy(label_HW)
            counts_KK += confusion(ids_HW, label_ids_HW, len(taxonomy), taxonomy.ignore_index)
        if not counts_KK.any():
            raise DataError(f"{self._dataset.root}: every pixel of the validation masks is ignored; label the images")
        return masks, scores(counts_KK, taxonomy.names, self.images)


def _evenly_spaced(samples: tuple[Sample, ...], limit: int) -> tuple[Sample, ...]:
    """At most `limit` samples at even intervals; adjacent ones are often frames of one video."""
    if len(samples) <= limit:
        return samples
    return tuple(samples[index * len(samples) // limit] for index in range(limit))
