"""What all layouts of image files and mask files share; each layout says in a few lines where things lie."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from trainer.data.dataset import EVERYTHING, DatasetError, MissingImagesError, Sample, SegmentationDataset
from trainer.data.decode import ImageError, image_size, read_image
from trainer.data.labels import Labels
from trainer.data.official_splits import NO_MASK, find_list, list_names, parse_line, read_list
from trainer.taxonomy import Taxonomy

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif")
"""Of photographs, in small letters or capitals."""


class FileDataset(SegmentationDataset):
    """A data set of one file an image and one file a mask.

    Attributes:
        root: the data set's folder.
        taxonomy: its classes.
        labels: what its masks store.
        lists: the folder of the split files.
    """

    def __init__(self, root: Path, taxonomy: Taxonomy, labels: Labels, lists: Path) -> None:
        self.root, self.taxonomy, self.labels, self.lists = root, taxonomy, labels, lists

    @abstractmethod
    def images_named(self, name: str) -> Iterator[Path]:
        """Where the image that a list calls `name` may lie."""

    @abstractmethod
    def masks_of(self, image: Path) -> Iterator[Path]:
        """Where an image's mask may lie, the preferred place first."""

    @abstractmethod
    def every_image(self) -> Iterable[Path]:
        """All images, in any order."""

    def labels_of(self, mask: Path) -> Labels:  # noqa: ARG002 (layouts with several forms of masks look at it)
        """What a mask file stores."""
        return self.labels

    def own_splits(self) -> Iterable[str]:
        """Splits that the layout itself has, without a list in `lists`."""
        return ()

    def own_split(self, name: str) -> list[str]:
        """The lines of such a split."""
        raise DatasetError(f"{self.lists / name}.txt: there is no such split; there are {_named(self.splits())}")

    def split(self, name: str) -> tuple[Sample, ...]:
        """See SegmentationDataset."""
        source = find_list(self.lists, name)
        if name == EVERYTHING:
            lines = sorted(path.relative_to(self.root).as_posix() for path in self.every_image())
        else:
            lines = read_list(source) if source else self.own_split(name)
        if not lines:
            raise DatasetError(f"{self.root}: holds no images of the split {name!r}; give another data.root")
        there = Folders()
        found = [(line, self._sample(line, there)) for line in lines]
        samples = tuple(sample for _, sample in found if sample)
        if missing := [line for line, sample in found if not sample]:
            remedy = self._suffix_remedy(missing, there)
            raise MissingImagesError(source or self.root / name, missing, samples, remedy)
        return samples

    def splits(self) -> tuple[str, ...]:
        """See SegmentationDataset."""
        return tuple(sorted(list_names(self.lists) | set(self.own_splits())))

    def has_mask(self, sample: Sample) -> bool:
        """See SegmentationDataset."""
        return sample.mask is not None and sample.mask.exists()

    def size(self, sample: Sample) -> tuple[int, int]:
        """See SegmentationDataset."""
        return image_size(sample.image, sample.image)

    def stored(self, sample: Sample, *, mask: bool, limit: int = -1) -> bytes:
        """See SegmentationDataset."""
        path = _mask(sample) if mask else sample.image
        try:
            with path.open("rb") as file:
                return file.read(limit)
        except OSError as error:
            raise ImageError(
                f"{path}: cannot be read ({error.strerror}); add it or take it out of the lists"
            ) from error

    def read(self, sample: Sample) -> npt.NDArray[np.uint8]:
        """See SegmentationDataset."""
        return read_image(sample.image)

    def read_mask(self, sample: Sample, size: tuple[int, int]) -> npt.NDArray[np.int64]:
        """See SegmentationDataset."""
        mask = _mask(sample)
        return self.labels_of(mask).read(mask, size)

    def _sample(self, line: str, there: "Folders") -> Sample | None:
        for image in self.images_named(line):
            if image in there:
                return Sample(line, image, self._mask(image, "", there))
        for name, mask in ((line, ""), parse_line(line)):
            image = self.root / name
            if image in there:
                return Sample(name, image, self._mask(image, mask, there))
        return None

    def _suffix_remedy(self, missing: list[str], there: "Folders") -> str | None:
        """What to say where a name is that of an image but for its extension."""
        for line in missing:
            name = PurePosixPath(line)
            bare = line.removesuffix(name.suffix)
            if name.suffix.lower() in SUFFIXES and self._sample(bare, there):
                return f"write names without extension: {bare}"
        return None

    def _mask(self, image: Path, listed: str, there: "Folders") -> Path | None:
        """The mask that the list names where it exists, or the layout's own."""
        if listed == NO_MASK:
            return None
        places = [self.root / listed] if listed else []
        places += self.masks_of(image)
        return next((path for path in places if path in there), places[0] if places else None)


class Folders:
    """Whether files exist, by one listing a folder: lists of a hundred thousand names are common."""

    def __init__(self) -> None:
        self._names: dict[Path, set[str]] = {}

    def __contains__(self, path: Path) -> bool:
        folder = path.parent
        if folder not in self._names:
            self._names[folder] = {child.name for child in folder.iterdir()} if folder.is_dir() else set()
        # A file system may take capitals for small letters; then the listing alone does not know.
        return path.name in self._names[folder] or (bool(self._names[folder]) and path.is_file())


def files_below(folder: Path) -> Iterator[Path]:
    """All images in the folder, at any depth; hidden ones are left out."""
    for path in folder.rglob("*"):
        if path.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield path


def mirrored(image: Path, images: Path, masks: Iterable[Path]) -> Iterator[Path]:
    """The masks of an image where they lie in a tree like that of the images, as .png files."""
    if image.is_relative_to(images):
        for folder in masks:
            yield folder / image.relative_to(images).with_suffix(".png")


def _mask(sample: Sample) -> Path:
    if sample.mask is None:
        raise ImageError(f"{sample.image}: has no mask; add one or take it out of the labelled split")
    return sample.mask


def _named(splits: Iterable[str]) -> str:
    return ", ".join(splits) or "none"
