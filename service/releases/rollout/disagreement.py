"""How far the masks of two models differ, by class: a reason to look at them, not a measure of quality."""

# H W pixels, K classes

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy.orm import Session

from service.storage.tables import Release

BLOCK = 65_536
"""Pixels that are counted at a time, in a fraction of a millisecond: other threads wait meanwhile."""


@dataclass(slots=True)
class Disagreement:
    """Compared images and pixels. Classes are those of the active model's masks."""

    images: int = 0
    dropped: int = 0
    """Images that were not compared: the service was busy, or they were too large."""
    errors: int = 0
    """Images on which the candidate failed."""
    pixels: dict[str, int] = field(default_factory=dict)
    """Pixels by class of the active model."""
    different: dict[str, int] = field(default_factory=dict)
    """Those among them to which the candidate gave another class."""

    def add(self, other: Disagreement) -> None:
        """Add the counts of other images."""
        self.images += other.images
        self.dropped += other.dropped
        self.errors += other.errors
        for own, more in ((self.pixels, other.pixels), (self.different, other.different)):
            for name, count in more.items():
                own[name] = own.get(name, 0) + count

    @property
    def share(self) -> float | None:
        """Share of the pixels that differ, 0..1; None without pixels."""
        pixels = sum(self.pixels.values())
        return sum(self.different.values()) / pixels if pixels else None


def compare_masks(active_HW: npt.NDArray[Any], candidate_HW: npt.NDArray[Any], names: Sequence[str]) -> Disagreement:
    """Count the pixels of one image, whose masks hold ids of the classes `names`."""
    pixels_K, different_K = np.zeros((2, len(names)), dtype=np.int64)
    rows = max(1, BLOCK // active_HW.shape[1])
    for top in range(0, len(active_HW), rows):
        active, candidate = active_HW[top : top + rows], candidate_HW[top : top + rows]
        pixels_K += np.bincount(active.ravel(), minlength=len(names))[: len(names)]
        different_K += np.bincount(active[active != candidate], minlength=len(names))[: len(names)]
    present = [k for k in range(len(names)) if pixels_K[k]]
    return Disagreement(
        images=1,
        pixels={names[k]: int(pixels_K[k]) for k in present},
        different={names[k]: int(different_K[k]) for k in present},
    )


def add_disagreement(session: Session, release_id: int, more: Disagreement) -> None:
    """Add counts to the row of a release."""
    release = session.get_one(Release, release_id, with_for_update=True)
    total = Disagreement(**(release.shadow or {}))
    total.add(more)
    release.shadow = asdict(total)
