"""Check the labels of a run before it trains, so that no model is trained on labels that teach nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
from PIL import Image

from service.classes.class_list import ClassList
from service.errors import LabelsUnusable
from service.runs.worker.snapshot import names
from service.storage.tables import Split

# A model that knows one class predicts it everywhere.
MIN_TRAINING_CLASSES = 2
MIN_VAL_CLASSES = 1


def check_labels(dataset: Path, classes: ClassList, check: Callable[[], None]) -> None:
    """Check that the labels of a run's data set show two classes, and those for validation one.

    `check` is called before each label, and may raise to stop. Raises LabelsUnusable if they do not.
    """
    ignored = classes.ignore_index
    for split in get_args(Split):
        if not names(dataset, split):
            raise LabelsUnusable(
                f"Every label of the split `{split}` was deleted after the run was queued: label others."
            )
    training = _classes(dataset, "labelled", ignored, MIN_TRAINING_CLASSES, check)
    question = f"If {ignored} stands for a class in your masks, replace it by the id of the class."
    if not training:
        raise LabelsUnusable(
            f"Every pixel of the labels for training is {ignored}, not labelled: label them. {question}"
        )
    if len(training) < MIN_TRAINING_CLASSES:
        # A label may be older than the first list; the trainer reports ids that are none.
        name = dict(enumerate(classes.names)).get(min(training), "an unknown one")
        raise LabelsUnusable(
            f"The labels for training show one class only, {name!r}, and one class alone cannot be learnt: label "
            f"others too. {question}"
        )
    if not _classes(dataset, "val", ignored, MIN_VAL_CLASSES, check):
        raise LabelsUnusable(
            f"Every pixel of the `val` labels is {ignored}, not labelled, so a candidate cannot be evaluated: label "
            f"them. {question}"
        )


def _classes(dataset: Path, split: Split, ignored: int, enough: int, check: Callable[[], None]) -> set[int]:
    """Class ids that the labels show; stops as soon as there are enough."""
    found: set[int] = set()
    for name in names(dataset, split):
        check()
        with Image.open(dataset / "masks" / f"{name}.png") as mask:
            found |= {int(value) for value in np.unique(np.asarray(mask))} - {ignored}
        if len(found) >= enough:
            break
    return found
