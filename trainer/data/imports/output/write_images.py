"""Write images and masks of an import into the folder of a data set, in threads."""

# H W pixels, K classes

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import numpy.typing as npt

from trainer.data.decode import ImageError, image_size
from trainer.data.formats.rgb import FULL_16_BITS
from trainer.data.imports.output.class_plan import ClassPlan
from trainer.data.imports.source.annotated import Annotated, Size
from trainer.data.imports.source.loss_report import Losses
from trainer.data.map_in_threads import each_in_threads
from trainer.data.mask_file import write_mask

UNREADABLE = "an image cannot be read and is not imported"
UNUSABLE = "a label cannot be used; the image is imported without it"
ALL_IGNORED = "every pixel of a mask is ignored; the image is imported without it"
EMPTY_UNLABELLED = "an image has no annotation and is imported as unlabelled"
EMPTY_BACKGROUND = "an image has no annotation and is imported as background only"
UNLABELLED_REMEDY = "if they show nothing but background, use --empty background"


@dataclass(frozen=True, slots=True)
class WrittenImage:
    """What became of an image.

    Attributes:
        source: as the reader yielded it.
        name: its name in the data set.
        image: path of the written image, relative to the data set; "" if it could not be read.
        counts_K: pixels by class, int64 [K]; None if it has no mask.
        losses: of this image.
    """

    source: Annotated
    name: str
    image: str
    counts_K: npt.NDArray[np.int64] | None
    losses: Losses = field(default_factory=Losses)

    @property
    def mask(self) -> str:
        """Path of the written mask, relative to the data set; "" if there is none."""
        return f"masks/{self.name}.png" if self.counts_K is not None else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageWriter:
    """Writes into `folder`, which has images and masks; `link` and `empty` as in ImportOptions."""

    folder: Path
    plan: ClassPlan
    empty: Literal["unlabelled", "background"]
    link: bool

    def write_all(
        self, images: Sequence[Annotated], names: Sequence[str], on_done: Callable[[int, int], None], *, bar: bool
    ) -> Iterator[WrittenImage]:
        """Write all images and masks; `on_done` gets the numbers of finished and of all images."""
        pairs = list(zip(images, names, strict=True))
        for done, written in enumerate(each_in_threads(self._write, pairs, "images", bar=bar), 1):
            yield written
            on_done(done, len(pairs))

    def _write(self, pair: tuple[Annotated, str]) -> WrittenImage:
        source, name = pair
        losses = Losses()
        image = f"images/{name}{PurePosixPath(source.path).suffix}"
        try:
            # Of images that need data.range, only the size is needed here.
            image_file = source.image if isinstance(source.image, Path) else BytesIO(source.image())
            size = image_size(image_file, Path(source.path), FULL_16_BITS)
        except ImageError as error:
            losses.add("unreadable image", UNREADABLE, error)
            return WrittenImage(source, name, "", None, losses)
        self._store(image_file, self.folder / image)
        mask_HW = self._mask(source, size, losses)
        if mask_HW is None:
            return WrittenImage(source, name, image, None, losses)
        classes = len(self.plan.taxonomy)
        counts_K = np.bincount(mask_HW.ravel(), minlength=classes)[:classes]
        if not counts_K.any():
            losses.add("empty mask", ALL_IGNORED, source.path)
            return WrittenImage(source, name, image, None, losses)
        written = WrittenImage(source, name, image, counts_K.astype(np.int64), losses)
        target = self.folder / written.mask
        target.parent.mkdir(parents=True, exist_ok=True)
        write_mask(target, mask_HW, self.plan.taxonomy.colors)
        return written

    def _store(self, image: Path | BytesIO, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(image, BytesIO):
            target.write_bytes(image.getvalue())
            return
        if self.link:
            try:
                os.link(image.resolve(), target)
            except OSError:  # another file system, or one without links
                pass
            else:
                return
        shutil.copyfile(image, target)

    def _mask(self, source: Annotated, size: Size, losses: Losses) -> npt.NDArray[np.uint8 | np.uint16] | None:
        if source.label is None:
            if self.empty == "background" and self.plan.background is not None:
                losses.add("image without annotation", EMPTY_BACKGROUND, source.path)
                ids_HW = np.full(size, self.plan.background)
                return ids_HW.astype(np.uint8 if self.plan.taxonomy.ignore_index < 256 else np.uint16)
            losses.add("image without annotation", EMPTY_UNLABELLED, source.path, remedy=UNLABELLED_REMEDY)
            return None
        try:
            return self.plan.convert(source.label.draw(size, losses))
        except ImageError as error:
            losses.add("unusable label", UNUSABLE, error)
            return None
