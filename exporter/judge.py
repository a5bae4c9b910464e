"""How well a graph does on a data set's own validation images, against PyTorch and against the truth."""

# H W pixels

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from exporter.manifest import Validation
from exporter.probe import Bytes, Ids, Predict
from trainer.data.dataset import Sample
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

    def __init__(self, root: Path, taxonomy: Taxonomy, predict: Predict) -> None:
        """Ask PyTorch once.

        Args:
            root: the data set.
            taxonomy: the checkpoint's classes; the data set's must be the same.
            predict: PyTorch in fp32.

        Raises:
            DataError: the data set's classes are others.
            DatasetError, ImageError: it cannot be read.
        """
        self._dataset = open_dataset(root)
        if self._dataset.taxonomy.names != taxonomy.names:
            raise DataError(f"{root}: its classes are not the checkpoint's; give the data set it was trained on")
        self._samples = _spread(self._dataset.split("val"), JUDGED)
        self.images = len(self._samples)
        self._masks: list[Ids] = []
        self.miou = self._score(predict, self._masks.append)

    def __call__(self, predict: Predict) -> Validation:
        """Hold a graph against PyTorch's masks and the truth."""
        found: list[Ids] = []
        miou = self._score(predict, found.append)
        equal = sum(int((one == other).sum()) for one, other in zip(self._masks, found, strict=True))
        return Validation(
            images=self.images,
            mask=equal / sum(mask.size for mask in found),
            miou=miou,
            miou_lost=self.miou - miou,
        )

    def calibration_images(self) -> list[Bytes]:
        """Images that do not judge, uint8 [H,W,3]; those that do, where there are no others."""
        splits = [name for name in ("labelled", "train", "unlabelled") if name in self._dataset.splits()]
        samples = [sample for name in splits for sample in self._dataset.split(name)]
        return [self._dataset.read(sample) for sample in _spread(tuple(samples) or self._samples, CALIBRATING)]

    def _score(self, predict: Predict, keep: Callable[[Ids], None]) -> float:
        taxonomy = self._dataset.taxonomy
        counts_KK = torch.zeros((len(taxonomy), len(taxonomy)), dtype=torch.int64)
        for sample in self._samples:
            image_HW3, truth_HW = self._dataset.read_pair(sample)
            mask_HW = predict(image_HW3[None])[0][0]
            keep(mask_HW)
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
