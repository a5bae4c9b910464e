"""Add the images and labels of an imported data set to the pool, with its splits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage
from sqlalchemy.exc import DBAPIError

from service.conversion.pool_classes import ImportedClass, PoolClasses, put_label
from service.errors import MaskloopError
from service.images.image_store import ImageStore
from service.images.label_masks import encode_mask
from service.images.new_images import NewImage
from service.segmentation.formats.rgb import ValueRange
from service.storage.tables import Image, Split

# Images of one transaction. They are in memory together.
MAX_IMAGES, MAX_BYTES = 32, 16 * 2**20
SPLITS: dict[str, Split | None] = {"labelled": "labelled", "val": "val", "unlabelled": None}
"""Split of the label by split of the data set. Others are not added: the pool has no images for tests."""

LabelOutcome = Literal["added", "replaced", "kept"]


@dataclass(frozen=True, slots=True)
class DatasetImage:
    """An image of the data set; `split` is None if it has no label."""

    name: str
    file: Path
    split: Split | None


@dataclass(slots=True)
class AddedImage:
    """What became of an image of the data set."""

    name: str
    image: Image | None = None
    is_new: bool = False
    label: LabelOutcome | None = None
    error: Exception | None = None


@dataclass(kw_only=True)
class DatasetAdder:
    """Adds a data set that `import` wrote to `folder`."""

    folder: Path
    images: ImageStore
    classes: PoolClasses
    value_range: ValueRange | None
    replace: bool
    """Whether a label replaces one that the image has in the pool."""
    max_image_bytes: int

    @cached_property
    def table(self) -> npt.NDArray[np.uint16]:
        """Id in the pool by id in the data set; see PoolClasses. Raises ClassUnknown."""
        account = json.loads((self.folder / "import.json").read_text(encoding="utf-8"))
        listed = [ImportedClass(entry["name"], entry["pixels"]) for entry in account["classes"]]
        return self.classes.table_of(listed)

    def groups(self) -> Iterator[list[DatasetImage]]:
        """Group the images into transactions; those of the split `test` are not added."""
        group: list[DatasetImage] = []
        size = 0
        for image in self._listed():
            length = image.file.stat().st_size
            if group and (len(group) == MAX_IMAGES or size + length > MAX_BYTES):
                yield group
                group, size = [], 0
            group.append(image)
            size += length
        if group:
            yield group

    def add(self, group: list[DatasetImage]) -> list[AddedImage]:
        """Add images in one transaction, then their labels."""
        outcomes = [AddedImage(each.name) for each in group]
        received: list[tuple[int, NewImage]] = []
        for index, each in enumerate(group):
            try:
                received.append((index, self._receive(each.file)))
            except (MaskloopError, OSError) as error:
                outcomes[index].error = error
        try:
            added = self.images.add_all([image for _, image in received])
        except (MaskloopError, OSError, DBAPIError) as error:
            for index, _ in received:
                outcomes[index].error = error
            return outcomes
        for (index, _), (image, is_new) in zip(received, added, strict=True):
            outcomes[index].image, outcomes[index].is_new = image, is_new
            self._add_label(group[index], outcomes[index])
        return outcomes

    def _listed(self) -> Iterator[DatasetImage]:
        files = {path.relative_to(self.folder / "images").with_suffix("").as_posix(): path for path in self._files()}
        for name_of_split, split in SPLITS.items():
            listed = self.folder / f"splits/{name_of_split}.txt"
            names = listed.read_text(encoding="utf-8").splitlines() if listed.exists() else []
            for name in names:
                yield DatasetImage(name, files[name], split)

    def _files(self) -> Iterator[Path]:
        return (path for path in (self.folder / "images").rglob("*") if path.is_file())

    def _receive(self, file: Path) -> NewImage:
        with file.open("rb") as opened:
            # At most one byte more than the limit.
            data = opened.read(self.max_image_bytes + 1)
        return self.images.receive(data, value_range=self.value_range)

    def _add_label(self, source: DatasetImage, outcome: AddedImage) -> None:
        if source.split is None or outcome.image is None:
            return
        if outcome.image.mask_sha256 is not None and not self.replace:
            outcome.label = "kept"
            return
        try:
            mask = self._mask(self.folder / f"masks/{source.name}.png")
            put_label(self.images, self.classes, outcome.image.id, mask, source.split)
        except (MaskloopError, OSError, DBAPIError) as error:
            outcome.error = error
        else:
            outcome.label = "added" if outcome.image.mask_sha256 is None else "replaced"

    def _mask(self, file: Path) -> bytes:
        with PillowImage.open(file) as image:
            ids_HW = self.table[np.asarray(image)]
        return encode_mask(ids_HW if int(ids_HW.max()) > 255 else ids_HW.astype(np.uint8))
