"""Whether the labels of the pool show enough classes for a run, and which classes no label shows."""

from __future__ import annotations

from sqlalchemy.orm import Session

from service.classes.class_list import ClassHistory
from service.classes.label_counts import count_uncounted, read_labelled
from service.errors import LabelsUnusable

MIN_CLASSES = 2
"""A model that knows one class predicts it everywhere."""


def check_classes(session: Session, history: ClassHistory) -> None:
    """Check that the list has two classes, and that labels for training show two.

    Raises LabelsUnusable. Labels that are not counted yet may show any class: the worker checks them before it trains.
    """
    names = history.present.names
    if len(names) < MIN_CLASSES:
        raise LabelsUnusable(
            f"The class list has one class only, {names[0]!r}, and one class alone cannot be learnt: add the others, "
            "such as the background (PUT /v1/classes)."
        )
    missing = classes_without_labels(session, history)
    if len(names) - len(missing) < MIN_CLASSES and not count_uncounted(session):
        raise LabelsUnusable(
            f"The labels for training must show at least two classes, and no label shows {quoted(missing)}: label "
            "some of these (PUT /v1/images/ID/mask?split=labelled)."
        )


def classes_without_labels(session: Session, history: ClassHistory) -> list[str]:
    """Names of the classes that no label for training shows."""
    labels = read_labelled(session, history, "labelled").labels
    return [name for class_id, name in enumerate(history.present.names) if labels[class_id] == 0]


def quoted(names: list[str], most: int = 20) -> str:
    """Names in quotation marks, the first ones of many."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more
