"""Score models on validation images, in the engine that serves, after their probes passed in this process.

All models run on each image before the next one is read. So they see the same labels, and a change of the machine's
load affects their latencies alike.
"""

# I images, H W pixels, K classes

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

import numpy as np

from service.classes.class_list import ClassList
from service.errors import MaskloopError, names_only
from service.models.loading import LoadedModel
from service.releases.gate.class_scopes import ModelIds, Scope, limited
from service.releases.gate.statistics.calibration import LEVELS, Histogram, calibration_error, confidence_histogram
from service.releases.gate.statistics.class_counts import ClassCounts, Counts, Indices, count_classes, number_units
from service.releases.gate.validation_samples import Sample


@dataclass(frozen=True, slots=True)
class Score:
    """What a model achieves on the validation images. Latency and calibration never decide."""

    version: str
    miou: float
    """IoU, 0..1: mean over the classes in ground truth or prediction, as the trainer reports it."""
    miou_truth_classes: float
    """IoU, 0..1: mean over the classes in the ground truth, which are the same for all models."""
    truth_classes: int
    """Number of classes in the ground truth."""
    per_class: dict[str, float | None]
    """IoU by class name, 0..1; None for a class in neither."""
    latency_ms: float | None = None
    """Median time of the inference of one image, in milliseconds."""
    calibration_error: float | None = None
    """Expected calibration error, 0..1, in 15 bins."""


class InferenceFailed(Exception):  # noqa: N818 - named by what happened
    """A model fails on a validation image, and not for a fault of the machine or of the image."""

    def __init__(self, version: str, reason: str) -> None:
        super().__init__(f"{version} fails on a validation image ({reason}).")
        self.version = version


@dataclass
class Measurement:
    """Counts of one model, collected image by image."""

    model: LoadedModel
    classes: ClassList
    """The list of the labels."""
    ids: ModelIds
    scopes: Sequence[Scope]
    """For each count, the classes whose labelled pixels count. The score is of the first."""
    _rows: list[list[tuple[Counts, Counts, Counts]]] = field(default_factory=list)
    _seconds: list[float] = field(default_factory=list)
    _histogram: Histogram = field(default_factory=lambda: np.zeros((2, LEVELS), dtype=np.int64))

    def add(self, sample: Sample) -> None:
        """Run the model on an image and count its classes. Raises InferenceFailed, or MaskloopError as the engine."""
        start = time.perf_counter()
        try:
            found = self.model.engine.run(sample.pixels[self.model.value_range])
        except MaskloopError:
            raise
        except Exception as error:
            raise InferenceFailed(self.model.version, names_only(str(error))) from error
        self._seconds.append(time.perf_counter() - start)
        ignore, mask_HW = self.classes.ignore_index, self.ids.translate(found.mask_HW)
        counted = {}
        for scope_K in self.scopes:
            if (key := scope_K.tobytes()) not in counted:
                truth_HW = limited(sample.mask_HW, scope_K, ignore)
                counted[key] = count_classes(truth_HW, mask_HW, len(self.classes), ignore)
        self._rows.append([counted[scope_K.tobytes()] for scope_K in self.scopes])
        counted_HW = limited(sample.mask_HW, self.scopes[0], ignore) != ignore
        right = (mask_HW == sample.mask_HW)[counted_HW]
        self._histogram += confidence_histogram(found.confidence_HW[counted_HW], right)

    def counts(self, number: int = 0) -> ClassCounts:
        """Counts of all images, of the classes of one scope."""
        scope_K = self.scopes[number]
        rows = [row[number] for row in self._rows]
        rows_I3K = np.array(rows, dtype=np.int64).reshape(-1, 3, len(scope_K)) * scope_K
        return ClassCounts(rows_I3K[:, 0], rows_I3K[:, 1], rows_I3K[:, 2])

    @property
    def score(self) -> Score:
        """The score on all images."""
        return score(
            self.model.version,
            self.classes.names,
            self.counts(),
            latency_ms=1000 * median(self._seconds) if self._seconds else None,
            calibration_error=calibration_error(self._histogram),
        )


def measure(measurements: Sequence[Measurement], samples: Iterable[Sample]) -> Indices:
    """Run the models on all samples, and count. Returns the unit of each image, [I] from 0.

    Raises InferenceFailed, or MaskloopError as the engine.
    """
    groups = []
    for number, sample in enumerate(samples):
        # Each model is first on every other image: the first finds the caches cold.
        for measurement in measurements if number % 2 else reversed(measurements):
            measurement.add(sample)
        groups.append(sample.group)
    return number_units(groups)


def score(
    version: str,
    names: Sequence[str],
    counts: ClassCounts,
    *,
    latency_ms: float | None = None,
    calibration_error: float | None = None,
) -> Score:
    """Compute the score of a model from its counts."""
    iou_K, union_K, truth_K = counts.iou(), counts.union().sum(axis=0), counts.truth_IK.sum(axis=0)
    per_class = [float(iou) if union else None for iou, union in zip(iou_K, union_K, strict=True)]
    return Score(
        version=version,
        miou=float(iou_K[union_K > 0].sum() / max(np.count_nonzero(union_K), 1)),
        miou_truth_classes=float(iou_K[truth_K > 0].sum() / max(np.count_nonzero(truth_K), 1)),
        truth_classes=int(np.count_nonzero(truth_K)),
        per_class=dict(zip(names, per_class, strict=True)),
        latency_ms=latency_ms,
        calibration_error=calibration_error,
    )
