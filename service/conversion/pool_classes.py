"""The classes of the labels in the pool, and which of them those of an imported data set are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from unicodedata import normalize

import numpy as np
import numpy.typing as npt

from service.classes.class_list import ClassHistory, ClassList
from service.errors import ClassUnknown
from service.images.image_store import ImageStore
from service.storage.tables import Image, Split

MAX_NAMED = 20


@dataclass(frozen=True, slots=True)
class ImportedClass:
    """A class of a data set, and the number of its pixels in the masks."""

    name: str
    pixels: int


@dataclass(frozen=True, slots=True)
class PoolClasses:
    """The present class list; `history` translates labels of earlier ones."""

    history: ClassHistory

    @property
    def present(self) -> ClassList:
        """Names and colours by class id, and the id of ignored pixels."""
        return self.history.present

    def table_of(self, classes: Sequence[ImportedClass]) -> npt.NDArray[np.uint16]:
        """Return the id in the pool by id in the data set, uint16 [65536]; all others are ignored.

        Classes are found by name. Raises ClassUnknown if one that masks show is none of the pool.
        """
        ids = {normalize("NFC", name): index for index, name in enumerate(self.present.names)}
        unknown = [each.name for each in classes if each.pixels and each.name not in ids]
        if unknown:
            raise ClassUnknown(
                f"The data set shows the classes {_listed(unknown)}, and the class list has "
                f"{_listed(self.present.names)}: add them (PUT /v1/classes), rename them in the source, or leave them "
                "out with ?ignore_class=NAME. For pixels that no region covers, use ?rest=ignored."
            )
        table = np.full(1 << 16, self.present.ignore_index, dtype=np.uint16)
        for index, each in enumerate(classes):
            if each.name in ids:
                table[index] = ids[each.name]
        return table


def read_label(images: ImageStore, classes: PoolClasses, image_id: str) -> bytes:
    """Return a label as a PNG of ids of the pool's classes. Raises ImageNotFound, FileLost."""
    return images.read_mask(image_id, classes.history)


def put_label(images: ImageStore, classes: PoolClasses, image_id: str, mask: bytes, split: Split) -> Image:
    """Set a label of ids of the pool's classes. Raises ImageNotFound, MaskInvalid."""
    return images.put_mask(image_id, mask, classes=classes.present, split=split, partial=True)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more
