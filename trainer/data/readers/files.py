"""Base class of the layouts with one file per image and one per mask."""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from trainer.data.dataset import EVERYTHING, DatasetError, MissingImagesError, Sample, SegmentationDataset
from trainer.data.decode import ImageError, image_size, read_image
from trainer.data.mask_encoding import MaskEncoding
from trainer.data.readers.directory_listing import SUFFIXES, DirectoryListing, files_below
from trainer.data.readers.near_names import near_name
from trainer.data.readers.split_files import NO_MASK, find_split_file, parse_line, read_split_file, split_names
from trainer.taxonomy import Taxonomy


class FileDataset(SegmentationDataset):
    """A data set with one file per image and one per mask.

    A layout sets the attributes; paths are relative to the root.

    Attributes:
        image_root: folder of all images, at any depth.
        mask_roots: folders that mirror image_root with .png masks, the preferred one first.
        name_folders: folders of image_root in which the names of split files are searched.
        name_end: appended to a name to get that of a file without its extension.
    """

    image_root: ClassVar[str]
    mask_roots: ClassVar[tuple[str, ...]] = ()
    name_folders: ClassVar[tuple[str, ...]] = ("",)
    name_end: ClassVar[str] = ""

    def __init__(self, root: Path, taxonomy: Taxonomy, encoding: MaskEncoding, split_folder: Path) -> None:
        self.root, self.taxonomy, self.encoding, self.split_folder = root, taxonomy, encoding, split_folder
        # As `Path` writes paths below the current directory: without "./".
        self._base = "" if root == Path() else str(root)

    def path(self, *parts: str) -> str:
        """A path below the root. Text, since a large split has a million paths."""
        return os.path.join(self._base, *parts)  # noqa: PTH118 (Path is slower)

    def mask_candidates(self, image: str) -> Iterator[str]:
        """Possible paths of an image's mask, the preferred one first."""
        if image.startswith(images := self.path(self.image_root, "")):
            stem = os.path.splitext(image.removeprefix(images))[0]  # noqa: PTH122 (Path is slower)
            for folder in self.mask_roots:
                yield self.path(folder, f"{stem}.png")

    def all_images(self) -> Iterable[Path]:
        """All images, in any order."""
        return files_below(self.root / self.image_root)

    def encoding_of(self, mask: Path) -> MaskEncoding:  # noqa: ARG002 (used by layouts with several kinds of masks)
        """Encoding of a mask file."""
        return self.encoding

    def folder_splits(self) -> Mapping[str, str]:
        """Splits that are folders of images, by name; the folders are relative to the root."""
        return {}

    def builtin_splits(self) -> Iterable[str]:
        """Names of splits without a split file."""
        return (name for name, folder in self.folder_splits().items() if (self.root / folder).is_dir())

    def builtin_split(self, name: str) -> list[str]:
        """Lines of such a split."""
        folder = self.folder_splits().get(name)
        if folder and (images := sorted(files_below(self.root / folder))):
            return [path.relative_to(self.root).as_posix() for path in images]
        known = ", ".join(self.splits()) or "none"
        raise DatasetError(
            f"{self.split_folder / name}.txt: no such split; existing splits: {known}; add the file, or name one of "
            "them in data.labelled, data.unlabelled or data.val"
        )

    def split(self, name: str) -> tuple[Sample, ...]:
        """See SegmentationDataset."""
        source = find_split_file(self.split_folder, name)
        if name == EVERYTHING:
            lines = sorted(path.relative_to(self.root).as_posix() for path in self.all_images())
        else:
            lines = read_split_file(source) if source else self.builtin_split(name)
        if not lines:
            raise DatasetError(f"{self.root}: contains no images of the split {name!r}; set another data.root")
        listing = DirectoryListing()
        pairs = [(line, self._sample(line, listing)) for line in lines]
        samples = tuple(sample for _, sample in pairs if sample)
        if missing := [line for line, sample in pairs if not sample]:
            remedy = self._folder_remedy() or self._suffix_remedy(missing, listing)
            remedy = remedy or near_name(missing, self.all_images(), self.root, self.name_end)
            raise MissingImagesError(source or self.root / name, missing, samples, remedy)
        _check_listed_once(source or self.root / name, samples)
        if name != EVERYTHING:
            self._check_masks_not_shared(samples, listing)
        return samples

    def splits(self) -> tuple[str, ...]:
        """See SegmentationDataset."""
        return tuple(sorted(split_names(self.split_folder) | set(self.builtin_splits())))

    def has_mask(self, sample: Sample) -> bool:
        """See SegmentationDataset."""
        return sample.mask is not None and sample.mask.exists()

    def size(self, sample: Sample) -> tuple[int, int]:
        """See SegmentationDataset."""
        return image_size(sample.image, sample.image, self.value_range)

    def read_bytes(self, sample: Sample, *, mask: bool, limit: int = -1) -> bytes:
        """See SegmentationDataset."""
        path = _mask_path(sample) if mask else sample.image
        try:
            with path.open("rb") as file:
                return file.read(limit)
        except OSError as error:
            reason = f"cannot be read ({error.strerror}); add it or remove it from the split files"
            raise ImageError(f"{path}: {reason}") from error

    def read(self, sample: Sample) -> npt.NDArray[np.uint8]:
        """See SegmentationDataset."""
        return read_image(sample.image, self.value_range)

    def read_mask(self, sample: Sample, size: tuple[int, int]) -> npt.NDArray[np.int64]:
        """See SegmentationDataset."""
        mask = _mask_path(sample)
        return self.encoding_of(mask).decode(mask, mask, size)

    def images_named(self, name: str, listing: DirectoryListing) -> list[str]:
        """Images that a name of a split file may mean."""
        paths = [self.path(self.image_root, folder, f"{name}{self.name_end}") for folder in self.name_folders]
        return [image for path in paths for image in listing.images(path)]

    def images_of_mask(self, image: str, listing: DirectoryListing) -> list[str]:
        """Images, among them `image`, that may have the same mask in this layout."""
        return listing.images(os.path.splitext(image)[0])  # noqa: PTH122 (Path is slower)

    def _sample(self, line: str, listing: DirectoryListing) -> Sample | None:
        if images := self.images_named(line, listing):
            if len(images) > 1:
                found = " and ".join(Path(image).as_posix() for image in images)
                raise DatasetError(f"the name {line!r} means {found}; rename one, or list their paths")
            return self._sample_of(line, images[0], "", listing)
        for name, mask in ((line, ""), parse_line(line)):
            if (each := listing.find(self.path(name))) and Path(each).is_file():
                return self._sample_of(name, each, mask, listing)
        return None

    def _sample_of(self, name: str, found: str, listed_mask: str, listing: DirectoryListing) -> Sample:
        image = Path(found)
        mask = self._mask(str(image), listed_mask, listing)
        return Sample(name, image, Path(mask) if mask else None)

    def _folder_remedy(self) -> str | None:
        folder = self.root / self.image_root
        return None if folder.is_dir() else f"there is no folder {folder}: put the images there"

    def _suffix_remedy(self, missing: list[str], listing: DirectoryListing) -> str | None:
        """Remedy if an image exists under a missing name without its extension."""
        for line in missing:
            name = PurePosixPath(line)
            stem = line.removesuffix(name.suffix)
            if name.suffix.lower() in SUFFIXES and self.images_named(stem, listing):
                return f"write names without extension: {stem}"
        return None

    def _check_masks_not_shared(self, samples: tuple[Sample, ...], listing: DirectoryListing) -> None:
        for sample in samples:
            image, mask = str(sample.image), str(sample.mask)
            if sample.mask and listing.find(mask):
                for other in self.images_of_mask(image, listing):
                    if other != image and self._mask(other, "", listing) == mask:
                        raise DatasetError(
                            f"{sample.image} and {other} would share the mask {sample.mask.relative_to(self.root)}; "
                            "rename one of them, and its mask"
                        )

    def _mask(self, image: str, listed: str, listing: DirectoryListing) -> str | None:
        """The mask of the split file, if it exists, else that of the layout."""
        if listed == NO_MASK:
            return None
        candidates = [self.path(listed)] if listed else []
        candidates += self.mask_candidates(image)
        found = (listing.find(path) for path in candidates)
        return next((path for path in found if path), candidates[0] if candidates else None)


def _mask_path(sample: Sample) -> Path:
    if sample.mask is None:
        raise ImageError(f"{sample.image}: has no mask; add one or remove the image from the labelled split")
    return sample.mask


def _check_listed_once(source: Path, samples: tuple[Sample, ...]) -> None:
    names: dict[Path, str] = {}
    for sample in samples:
        if (first := names.setdefault(sample.image, sample.name)) != sample.name:
            raise DatasetError(f"{source}: {first!r} and {sample.name!r} are one image; remove one of the lines")
