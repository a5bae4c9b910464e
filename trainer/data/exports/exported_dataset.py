"""What the writers of the formats get: the images of a data set in its four splits, and their masks."""

# H W pixels

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from trainer.data.dataset import EVERYTHING, Sample, SegmentationDataset
from trainer.data.formats.rgb import FULL_16_BITS
from trainer.data.imports.output.output_names import output_names
from trainer.data.imports.source.annotated import Annotated
from trainer.data.imports.source.loss_report import Losses
from trainer.data.map_in_threads import each_in_threads
from trainer.data.readers.files import FileDataset
from trainer.data.readers.layouts import open_dataset
from trainer.taxonomy import IGNORE, WIDE_IGNORE, Taxonomy
from trainer.user_error import UserError

Split = Literal["labelled", "val", "test", "unlabelled"]
Result = TypeVar("Result")

SPELLINGS: dict[Split, tuple[str, ...]] = {
    "val": ("val", "validation"),
    "test": ("test",),
    "labelled": ("labelled", "labeled", "train"),
    "unlabelled": ("unlabelled", "unlabeled"),
}
"""Names of each split in the layouts that are read. An image in several of them belongs to the first."""

GROUPS = "groups.csv"
"""Groups of dependent images: a header `name,group`, then lines."""

IN_NO_SPLIT = "an image is in no split and is not exported"
OTHER_SPLIT = (
    "a split has no counterpart and is not exported; only the four splits labelled, unlabelled, val and test are"
)
SIDEWAYS = "an image has an EXIF orientation; its mask is of the upright image"


class ExportError(UserError):
    """A data set cannot be exported; the message names the remedy."""


@dataclass(frozen=True, slots=True)
class ExportedImage:
    """An image of the data set.

    Attributes:
        name: relative, unique, with "/" between folders, without suffix.
        suffix: of its file, such as ".jpg".
        split: the only one in which it is.
        group: the video, place or patient; "" if unknown.
        labelled: whether it has a mask.
    """

    name: str
    suffix: str
    split: Split
    group: str
    labelled: bool
    sample: Sample

    @property
    def file(self) -> str:
        """Name with suffix."""
        return f"{self.name}{self.suffix}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedDataset:
    """A data set to export.

    Attributes:
        source: the data set as it is read.
        images: in the order of their names.
        losses: gets what the format cannot hold.
        on_done: gets the numbers of finished and of all images.
        bar: whether a terminal shows a progress bar.
        with_images: whether the images are exported, or only their labels.
    """

    source: SegmentationDataset
    images: Sequence[ExportedImage]
    losses: Losses = field(default_factory=Losses)
    on_done: Callable[[int, int], None] = lambda _done, _total: None
    bar: bool = False
    with_images: bool = True

    @property
    def taxonomy(self) -> Taxonomy:
        """The classes. Its ignore_index is 255, or 65535 for more than 255 classes, whatever the source's is."""
        source = self.source.taxonomy
        return Taxonomy(source.names, source.colors, IGNORE if len(source) <= IGNORE else WIDE_IGNORE)

    def size(self, image: ExportedImage) -> tuple[int, int]:
        """Height and width of the upright image, in pixels. Raises ImageError."""
        return self.source.size(image.sample)

    def mask(self, image: ExportedImage) -> npt.NDArray[np.uint8 | np.uint16] | None:
        """Class ids and ignore_index of `taxonomy`, [H, W]; uint16 for more than 255 classes. Raises ImageError."""
        if not image.labelled:
            return None
        ids_HW = self.source.read_mask(image.sample, self.size(image))
        ignored = self.taxonomy.ignore_index
        stored_HW = np.where(ids_HW == self.source.taxonomy.ignore_index, ignored, ids_HW)
        return stored_HW.astype(np.uint8 if ignored == IGNORE else np.uint16)

    def content(self, image: ExportedImage) -> bytes:
        """The encoded image, unchanged. Raises ImageError."""
        return self.source.read_bytes(image.sample, mask=False)

    def each(self, convert: Callable[[ExportedImage], Result]) -> Iterator[tuple[ExportedImage, Result]]:
        """Yield each image with the result of `convert`, which is called in threads."""
        results = each_in_threads(convert, self.images, "images", bar=self.bar)
        for done, (image, result) in enumerate(zip(self.images, results, strict=True), 1):
            yield image, result
            self.on_done(done, len(self.images))

    def in_split(self, split: Split) -> list[ExportedImage]:
        """Images of a split."""
        return [image for image in self.images if image.split == split]


def read_exported(root: Path, layout: str, losses: Losses) -> tuple[SegmentationDataset, list[ExportedImage]]:
    """Open a data set, and list its images. Raises DatasetError, TaxonomyError, or ExportError."""
    # Of images that need data.range, only the size is needed here.
    source = open_dataset(root, layout, value_range=FULL_16_BITS)
    samples = source.split(EVERYTHING)
    splits = _splits(source, samples, losses)
    named = [
        Annotated(image=each.image, path=path, name=name, label=None)
        for each in samples
        for path, name in [_path(source, each)]
    ]
    groups = read_groups(root / GROUPS)
    images = []
    for sample, annotated, name in zip(samples, named, output_names(named, losses), strict=True):
        if split := splits.get(sample.image):
            suffix = PurePosixPath(annotated.path).suffix or _suffix(source, sample)
            group = groups.get(annotated.name, "")
            images.append(ExportedImage(name, suffix, split, group, source.has_mask(sample), sample))
        else:
            losses.add("in no split", IN_NO_SPLIT, sample.name, remedy="list it in a file of splits/")
    if not any(image.labelled for image in images):
        raise ExportError(f"{root}: no image of its splits has a mask, so there are no labels to export; add masks")
    return source, sorted(images, key=lambda image: image.name)


def read_groups(path: Path) -> dict[str, str]:
    """Group by the name of the image; empty if there is no such file. Raises ExportError."""
    if not path.exists():
        return {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return {row["name"]: row["group"] for row in csv.DictReader(file)}
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise ExportError(f"{path}: is no table with the columns name and group ({error!r}); correct it") from error


def _splits(source: SegmentationDataset, samples: Sequence[Sample], losses: Losses) -> dict[Path, Split]:
    """Split by image. Without any split, images with a mask are labelled."""
    existing = source.splits()
    known = [(split, name) for split, names in SPELLINGS.items() for name in names if name in existing]
    for name in sorted(set(existing) - {name for _, name in known}):
        losses.add("other split", OTHER_SPLIT, name)
    if not known:
        return {each.image: "labelled" if source.has_mask(each) else "unlabelled" for each in samples}
    found: dict[Path, Split] = {}
    for split, name in known:
        for each in source.split(name):
            found.setdefault(each.image, split)
    return found


def _path(source: SegmentationDataset, sample: Sample) -> tuple[str, str]:
    """Path of the image within the data set, and its name there: below the images' folder, without suffix."""
    path = PurePosixPath(sample.image.relative_to(source.root).as_posix())
    if not isinstance(source, FileDataset):
        return path.as_posix(), path.as_posix()
    return path.as_posix(), path.relative_to(source.image_root).with_suffix("").as_posix()


def _suffix(source: SegmentationDataset, sample: Sample) -> str:
    with Image.open(BytesIO(source.read_bytes(sample, mask=False))) as image:
        return {"JPEG": ".jpg", "TIFF": ".tif"}.get(str(image.format), f".{str(image.format).lower()}")
