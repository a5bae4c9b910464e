"""Split a mask into one region for each class, for formats of regions.

In these, a pixel that no region covers is background. So a class called background gets no regions. Ignored pixels then
become regions of the extra label `__ignore__`. Without such a class, no region covers ignored pixels.
"""

# H W pixels

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.data.exports.exported_dataset import ExportError
from trainer.data.imports.output.class_plan import BACKGROUND, class_name
from trainer.data.imports.source.loss_report import Losses
from trainer.data.readers.voc_class_files import IGNORED_NAME, VOID
from trainer.taxonomy import Taxonomy

Pixels = npt.NDArray[np.bool_]

REST_IS_BACKGROUND = "the class {!r} has no regions: pixels that no region covers belong to it"
REST_IS_IGNORED = "no class is called background: pixels that no region covers are ignored"
IGNORED_REGIONS = f"a mask has ignored pixels; they are regions of the label {IGNORED_NAME}"
IGNORED_REMEDY = f"leave {IGNORED_NAME} out of a training; `import` reads it as ignored pixels"


@dataclass(frozen=True, slots=True)
class Region:
    """The pixels of one label in one image, bool [H, W]. `label` is a class id, or the number of classes: ignored."""

    label: int
    pixels_HW: Pixels


@dataclass(frozen=True, slots=True)
class LabelRegions:
    """How the classes become labels of regions.

    Attributes:
        taxonomy: the classes.
        background: id of the class without regions; None if there is none.
    """

    taxonomy: Taxonomy
    background: int | None

    @classmethod
    def of(cls, taxonomy: Taxonomy) -> "LabelRegions":
        """The rule for these classes. Raises ExportError if a class is called `__ignore__`."""
        if IGNORED_NAME in taxonomy.names:
            raise ExportError(
                f"a class is called {IGNORED_NAME}, the label of ignored pixels; rename it in classes.toml"
            )
        return cls(taxonomy, background_id(taxonomy))

    def split(self, mask_HW: npt.NDArray[np.integer[Any]]) -> Iterator[Region]:
        """The regions of a mask, in the order of their labels."""
        for value in np.unique(mask_HW).tolist():
            if value == self.taxonomy.ignore_index:
                if self.background is not None:
                    yield Region(len(self.taxonomy), mask_HW == value)
            elif value != self.background:
                yield Region(value, mask_HW == value)

    def labels(self, *, ignored: bool) -> list[tuple[int, str, tuple[int, int, int]]]:
        """Label, name and colour of everything that has regions; with `ignored`, also of ignored pixels."""
        pairs = enumerate(zip(self.taxonomy.names, self.taxonomy.colors, strict=True))
        found = [(label, name, color) for label, (name, color) in pairs if label != self.background]
        return [*found, (len(self.taxonomy), IGNORED_NAME, VOID[1])] if ignored else found

    def report(self, losses: Losses) -> None:
        """Say what pixels are that no region covers."""
        if self.background is None:
            losses.add("rest", REST_IS_IGNORED, "", remedy="`import --rest ignored` reads them so")
        else:
            losses.add("rest", REST_IS_BACKGROUND.format(self.taxonomy.names[self.background]), "")


def background_id(taxonomy: Taxonomy) -> int | None:
    """Id of the class that is called background, in any spelling that the import merges; None if there is none."""
    return next((index for index, name in enumerate(taxonomy.names) if class_name(name) == BACKGROUND), None)
