"""How well a graph does on a data set's own validation images, against PyTorch and against the truth."""

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
from trainer.data.layouts import open_dataset
from trainer.evaluation.metrics import confusion, scores
from trainer.taxonomy import Taxonomy

JUDGED = 200
"""Images that judge, at most."""

CALIBRATING = 64
"""Images from which int8's ranges are learnt, at most."""


class DataError(ValueError):
    """A data set that cannot judge this checkpoint; the message says what to do."""


class Judge:
    """A data set's validation images, and what PyTorch says of them.

    Attributes:
        miou: PyTorch's, 0..1.
        images: how many are looked at.
    """

    def __init__(self, root: Path, taxonomy: Taxonomy, data: Mapping[str, Any], predict: Predict) -> None:
        """Ask PyTorch once.

        Args:
            root: the data set.
            taxonomy: the checkpoint's classes; the data set's must be the same.
            data: the recipe's table: its format and the names of its splits.
            predict: PyTorch in fp32.

        Raises:
            DataError: the data set's classes are others.
            DatasetError, ImageError: it cannot be read.
        """
        lists = Path(data["splits"]) if data.get("splits") else None
        self._dataset, self._data = open_dataset(root, data.get("format", "auto"), lists), data
        if self._dataset.taxonomy.names != taxonomy.names:
            raise DataError(f"{root}: its classes are not the checkpoint's; give the data set it was trained on")
        self._judging = self._dataset.split(data.get("val") or "val")
        self._samples = _spread(self._judging, JUDGED)
        self.images = len(self._samples)
        self._masks: list[Ids] = []
        self.miou = self._score(predict, lambda _, mask_HW: self._masks.append(mask_HW))

    def __call__(self, predict: Predict) -> Validation:
        """Hold a graph against PyTorch's masks and the truth."""
        equal = [0, 0]

        def compare(number: int, mask_HW: Ids) -> None:
            equal[0] += int((mask_HW == self._masks[number]).sum())
            equal[1] += mask_HW.size

        miou = self._score(predict, compare)
        return Validation(images=self.images, mask=equal[0] / equal[1], miou=miou, miou_lost=self.miou - miou)

    def calibration_images(self) -> list[Bytes]:
        """Training images, uint8 [H,W,3]; where the data set has none but those that judge, these."""
        samples: list[Sample] = []
        for name in (self._data.get("labelled"), self._data.get("unlabelled")):
            # Unlabelled images may lie elsewhere; the labelled ones are enough.
            with suppress(DatasetError):
                samples += self._dataset.split(name) if name else ()
        others = without(dict.fromkeys(samples), self._judging)
        return [self._dataset.read(sample) for sample in _spread(others or self._samples, CALIBRATING)]

    def _score(self, predict: Predict, visit: Callable[[int, Ids], None]) -> float:
        taxonomy = self._dataset.taxonomy
        counts_KK = torch.zeros((len(taxonomy), len(taxonomy)), dtype=torch.int64)
        for number, sample in enumerate(self._samples):
            image_HW3, truth_HW = self._dataset.read_pair(sample)
            mask_HW = predict(image_HW3[None])[0][0]
            visit(number, mask_HW)
            counts_KK += confusion(
                torch.from_numpy(mask_HW.astype(np.int64)),
                torch.from_numpy(truth_HW),
                len(taxonomy),
                taxonomy.ignore_index,
            )
        return scores(counts_KK, taxonomy.names, self.images).miou


def _spread(samples: tuple[Sample, ...], most: int) -> tuple[Sample, ...]:
    """At most so many, evenly over the list: neighbours are often frames of one film."""
    if len(samples) <= most:
        return samples
    return tuple(samples[index * len(samples) // most] for index in range(most))
