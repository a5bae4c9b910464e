"""What a reader of a format yields: the source's classes, and its images with their labels."""

# H W pixels

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from trainer.data.imports.source.loss_report import Losses

Split = Literal["labelled", "val", "test"]
Color = tuple[int, int, int]
Size = tuple[int, int]
"""Height and width of the upright image, in pixels."""
Ids = npt.NDArray[np.uint16]
"""Positions in the source's list of classes, REST or VOID; [H, W]."""

VOID = 65535
"""Id of ignored pixels: the class is not known."""
REST = 65534
"""Id of pixels that no region covers: background, or ignored, as the user decides."""

SPLITS: dict[str, Split] = {
    "train": "labelled",
    "training": "labelled",
    "labelled": "labelled",
    "labeled": "labelled",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""Our split, by the word that sources use for it, in lower case. Images of other splits get one by drawing."""


@dataclass(frozen=True, slots=True)
class SourceClass:
    """A class as the source names it.

    Attributes:
        name: equal names, after trimming spaces and in composed Unicode form, become one class.
        color: red, green, blue; None = drawn.
        ignored: its pixels are ignored (labelme's `__ignore__`).
    """

    name: str
    color: Color | None = None
    ignored: bool = False


class Label(Protocol):
    """The label of one image, read when its mask is written, in one of several threads."""

    def draw(self, size: Size, losses: Losses) -> Ids:
        """The mask of an upright image of this size, and what was lost in it.

        Raises ImageError if the label cannot be used: the image is imported without it, and the message reported.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotated:
    """One image of the source.

    Attributes:
        image: its file within the source, copied as it is; or a function that reads its encoded bytes, if the source
            has no file for it.
        path: path within the source, with a suffix; for messages, and for the name if `name` is not unique.
        name: wanted name in the data set, without suffix; folders are separated by "/".
        label: None if the source has none.
        split: the source's; "" if it has none.
        label_files: files within the source that were used for the label, for import.json.
    """

    image: Path | Callable[[], bytes]
    path: str
    name: str
    label: Label | None
    split: Split | Literal[""] = ""
    label_files: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """The content of a source.

    Attributes:
        classes: in the order that the source defines, else sorted by name: the order of class ids.
        images: all images, also those without a label; a label's ids are positions in `classes`.
        has_rest: whether labels may contain REST.
    """

    classes: Sequence[SourceClass]
    images: Sequence[Annotated]
    has_rest: bool
