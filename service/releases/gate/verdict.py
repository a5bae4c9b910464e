"""The verdict of the gate, with everything from which it follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from service.releases.gate.scoring import Score
from service.releases.gate.statistics.difference import Difference
from service.releases.gate.statistics.new_classes import NewClass

Outcome = Literal["promote", "reject", "undecided"]
Mode = Literal["not_worse", "better"]
Role = Literal["active", "best"]

DRAWS = 4000
SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What a candidate must show."""

    margin: float
    """Loss of IoU that does not matter, 0..1."""
    level: float
    """Probability of error of each one-sided limit, between 0 and 0.5."""
    mode: Mode
    """`not_worse`: the lower limit must be above -margin. `better`: it must be above 0."""
    guard_classes: tuple[str, ...] = ()
    """A loss of more than the margin in one of these classes rejects the candidate."""
    draws: int = DRAWS
    """Draws of the bootstrap."""
    seed: int = SEED
    """Seed of the bootstrap."""

    @property
    def promotion_bound(self) -> float:
        """The lower limit must be above it."""
        return 0.0 if self.mode == "better" else -self.margin


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassComparison:
    """One class of two models on the same images. Limits are for this class alone."""

    candidate_iou: float
    other_iou: float
    difference: Difference
    guarded: bool
    """Whether a loss rejects the candidate."""
    p_value: float | None
    """Of a loss above the margin, adjusted by Holm's method for all guarded classes; None if not guarded."""
    worse: bool
    """Whether it is guarded, and the loss is above the margin at the level."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The candidate and another model on the same images."""

    role: Role
    version: str
    """Of the other model."""
    mode: Mode
    outcome: Outcome
    difference: Difference
    """In mIoU over the classes in the labels."""
    classes: Mapping[str, ClassComparison]
    units_needed: int | None
    """If undecided: number of units, present ones included, that would decide in 80 % of all cases if the difference
    and its spread stay the same. None: decided, or no practicable number would do, or the spread is unknown."""
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Decision about a candidate. Stored as JSON in the row of its run."""

    outcome: Outcome
    sentence: str
    """The decision and its reason, for people."""
    rule: Rule
    images: int = 0
    """Validation images."""
    units: int = 0
    """Independent units among them that have a label: images, or groups of images."""
    pixels: int = 0
    """Pixels with a label."""
    validation_set_uses: int = 0
    """Number of earlier candidates that were judged on validation images of this pool."""
    unguarded: tuple[str, ...] = ()
    """Guard classes that were not tested, since fewer than 10 units show them."""
    candidate: Score | None = None
    """None if it does not run, or fails on its probe or on a validation image."""
    active: Score | None = None
    """None if there was none, or it has other classes."""
    best: Score | None = None
    """None if the active model is the best version so far, or no other can be compared."""
    comparisons: tuple[Comparison, ...] = ()
    """Each over the classes that both models have."""
    new_classes: Mapping[str, NewClass] = field(default_factory=dict)
    """Classes of the candidate that the active model lacks."""
    same_ids: bool = True
    """Whether the masks of candidate and active model have the same ids, so that both may answer at the same time."""
    needs_person: bool = False
    """Whether a person decides, whatever the settings: the first model of a class list cannot be compared."""

    @property
    def miou(self) -> tuple[float | None, float | None]:
        """MIoU of the active model and of the candidate, 0..1, over the classes of their comparison in the labels.

        Without a comparison, that of the candidate is over all its classes.
        """
        for each in self.comparisons:
            if each.role == "active":
                classes = each.classes.values()
                theirs, ours = (sum(c.other_iou for c in classes), sum(c.candidate_iou for c in classes))
                return theirs / len(classes), ours / len(classes)
        return None, self.candidate.miou_truth_classes if self.candidate else None
