"""Layouts with one file per image and one per mask: our own, and those of the public data sets."""

import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

from trainer.data.dataset import EVERYTHING, DatasetError
from trainer.data.decode import ImageError
from trainer.data.mask_encoding import MaskEncoding
from trainer.data.readers.directory_listing import DirectoryListing, files_below
from trainer.data.readers.files import FileDataset
from trainer.data.readers.split_files import read_split_file, split_names
from trainer.taxonomy import IGNORE, Taxonomy

CITYSCAPES_NAME_END = "_leftImg8bit"
CITYSCAPES_IMAGE = f"{CITYSCAPES_NAME_END}.png"
CITYSCAPES_TRAIN_IDS = "_labelTrainIds.png"

ADE20K_SPLITS = {"training": "train", "validation": "val"}
ADE20K_CHECKED_MASKS = 32
"""Masks read to tell raw from reduced ones."""

COCO_FOLDERS = ("train2017", "val2017", "unlabeled2017")
UNUSED_IDS = frozenset({12, 26, 29, 30, 45, 66, 68, 69, 71, 83})
"""Category ids up to 90 without a category."""
THING_IDS = tuple(index for index in range(1, 91) if index not in UNUSED_IDS)
"""COCO's category ids of the 80 things; a thing's class is its position here, plus 1."""
CLASS_OF_THING = {thing: position + 1 for position, thing in enumerate(THING_IDS)}
STUFF_IDS = range(92, 183)
"""COCO-Stuff's ids of stuff, which is background here."""
PIXEL_MAPS = ("stuffthingmaps", "stuffthingmaps_trainval2017")


class FolderDataset(FileDataset):
    """Our own layout: images/NAME.jpg (or .png, ...), masks/NAME.png, splits/*.txt, classes.toml."""

    image_root = "images"
    mask_roots = ("masks",)


class ImageFolder(FileDataset):
    """A plain folder of images at any depth; split files may list some of them by path."""

    image_root = ""
    name_folders = ("", "images")

    def __init__(self, root: Path, split_folder: Path) -> None:
        super().__init__(root, Taxonomy((), ()), MaskEncoding.identity(0, IGNORE), split_folder)

    def images_named(self, name: str, listing: DirectoryListing) -> list[str]:
        """See FileDataset. Names may have their extension."""
        found = [listing.find(self.path(folder, name)) for folder in self.name_folders]
        return [image for image in found if image] or super().images_named(name, listing)

    def builtin_split(self, name: str) -> list[str]:
        """See FileDataset."""
        if self.splits():
            return super().builtin_split(name)
        raise DatasetError(
            f"{self.root}: is a plain folder of images and has no split {name!r}; set "
            f'data.unlabelled = "{EVERYTHING}" to use all images, or list some in {self.split_folder / name}.txt'
        )


class VocDataset(FileDataset):
    """Pascal VOC 2012, 21 classes; 255 = border of objects. The lists in ImageSets/Segmentation are splits.

    SegmentationClassAug has the 10582 masks of the extended training set (Hariharan et al., ICCV 2011), which the
    UniMatch lists call SegmentationClass. Labelling tools write the same folders, with a list of own classes
    (voc_class_files.py); older versions of labelme write SegmentationClassPNG.
    """

    how_to_validate = "list some of the names in ImageSets/Segmentation/val.txt instead of train.txt there"
    image_root = "JPEGImages"
    mask_roots = ("SegmentationClass", "SegmentationClassAug", "SegmentationClassPNG")

    def builtin_splits(self) -> Iterable[str]:
        """See FileDataset."""
        return split_names(self.root / "ImageSets/Segmentation")

    def builtin_split(self, name: str) -> list[str]:
        """See FileDataset."""
        path = self.root / f"ImageSets/Segmentation/{name}.txt"
        return read_split_file(path) if path.exists() else super().builtin_split(name)


class CityscapesDataset(FileDataset):
    """Cityscapes, 19 classes: leftImg8bit/SPLIT/CITY, with masks in gtFine or gtCoarse. Datumaro omits CITY.

    *_labelTrainIds.png, written by the data set's scripts and named by the UniMatch lists, store the 19 ids;
    *_labelIds.png, from the download, are mapped to them.
    """

    how_to_validate = "move some cities from leftImg8bit/train to leftImg8bit/val, and their masks in gtFine alike"
    image_root = "leftImg8bit"
    name_end = CITYSCAPES_NAME_END

    def mask_candidates(self, image: str) -> Iterator[str]:
        """See FileDataset."""
        images = self.path(self.image_root, "")
        if image.startswith(images) and image.endswith(CITYSCAPES_IMAGE):
            stem = image.removeprefix(images).removesuffix(CITYSCAPES_IMAGE)
            for kind in ("gtFine", "gtCoarse"):
                for end in (CITYSCAPES_TRAIN_IDS, "_labelIds.png"):
                    yield self.path(kind, f"{stem}_{kind}{end}")

    def encoding_of(self, mask: Path) -> MaskEncoding:
        """See FileDataset."""
        if mask.name.endswith(CITYSCAPES_TRAIN_IDS) and not (self.root / "classes.toml").exists():
            return MaskEncoding.identity(len(self.taxonomy), self.taxonomy.ignore_index)
        return self.encoding

    def all_images(self) -> Iterable[Path]:
        """See FileDataset."""
        return (self.root / self.image_root).rglob(f"[!.]*{CITYSCAPES_IMAGE}")

    def builtin_splits(self) -> Iterable[str]:
        """See FileDataset."""
        return (path.name for path in (self.root / self.image_root).iterdir() if path.is_dir())

    def builtin_split(self, name: str) -> list[str]:
        """See FileDataset."""
        images = sorted((self.root / self.image_root / name).rglob(f"[!.]*{CITYSCAPES_IMAGE}"))
        return [path.relative_to(self.root).as_posix() for path in images] or super().builtin_split(name)


class Ade20kDataset(FileDataset):
    """ADE20K in the layout of the scene parsing challenge, 150 classes.

    The download's masks store 0 for "other" and k for class k - 1. Those published with UniMatch V2 store k for class k
    and 255 for "other", under the same names. A raw mask never contains 255 and almost every reduced one does, so a
    sample tells them apart.

    Folders of own data (images/NAME, annotations/NAME) are splits of that name.
    """

    how_to_validate = (
        "move some images to images/validation (or images/val), and their masks to the same folder of annotations"
    )
    image_root = "images"
    mask_roots = ("annotations",)

    def __init__(self, root: Path, taxonomy: Taxonomy, encoding: MaskEncoding, split_folder: Path) -> None:
        masks = islice((root / "annotations").rglob("[!.]*.png"), ADE20K_CHECKED_MASKS)
        if not (root / "classes.toml").exists() and any(_contains_255(mask, encoding) for mask in masks):
            encoding = MaskEncoding.identity(len(taxonomy), taxonomy.ignore_index)
        super().__init__(root, taxonomy, encoding, split_folder)
        folders = sorted(path.name for path in (root / "images").glob("*/"))
        self._folders = {ADE20K_SPLITS.get(name, name): f"images/{name}" for name in folders}

    def folder_splits(self) -> Mapping[str, str]:
        """See FileDataset."""
        return self._folders

    def images_named(self, name: str, listing: DirectoryListing) -> list[str]:
        """See FileDataset."""
        return [image for folder in self._folders.values() for image in listing.images(self.path(folder, name))]


class CocoDataset(FileDataset):
    """COCO 2017, and masks/NAME.png of 81 classes: background and the 80 things.

    The masks are published with UniMatch, or written by `prepare-coco`. Images without one use COCO-Stuff's pixel map
    (stuffthingmaps/train2017/NAME.png).
    """

    how_to_validate = "move some images from train2017 to val2017; masks of prepare-coco stay in place"
    image_root = ""
    name_folders = COCO_FOLDERS

    def folder_splits(self) -> Mapping[str, str]:
        """See FileDataset."""
        return dict(zip(("train", "val", "unlabelled"), COCO_FOLDERS, strict=True))

    def mask_candidates(self, image: str) -> Iterator[str]:
        """See FileDataset."""
        folder, name = os.path.basename(os.path.dirname(image)), f"{_stem(image)}.png"  # noqa: PTH119, PTH120
        yield self.path("masks", name)
        for root in ("masks", *PIXEL_MAPS):
            yield self.path(root, folder, name)

    def images_of_mask(self, image: str, listing: DirectoryListing) -> list[str]:
        """See FileDataset. `masks` is one folder for all."""
        stem = _stem(image)
        return [each for folder in COCO_FOLDERS for each in listing.images(self.path(folder, stem))]

    def encoding_of(self, mask: Path) -> MaskEncoding:
        """See FileDataset."""
        is_pixel_map = mask.is_relative_to(self.root) and mask.relative_to(self.root).parts[0] in PIXEL_MAPS
        return pixel_map_encoding(self.taxonomy.ignore_index) if is_pixel_map else self.encoding

    def all_images(self) -> Iterable[Path]:
        """See FileDataset."""
        return (path for folder in COCO_FOLDERS for path in files_below(self.root / folder))


def pixel_map_encoding(ignore_index: int) -> MaskEncoding:
    """Encoding of COCO-Stuff's pixel maps: category id minus 1, and 255 for unlabelled pixels."""
    id_of_value = {thing - 1: index for thing, index in CLASS_OF_THING.items()}
    return MaskEncoding.from_values(id_of_value | {stuff - 1: 0 for stuff in STUFF_IDS}, (255,), ignore_index)


def _stem(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0]  # noqa: PTH119, PTH122 (Path is slower)


def _contains_255(mask: Path, raw: MaskEncoding) -> bool:
    try:
        return bool((raw.stored_values(mask, mask) == raw.ignore_index).any())
    except ImageError:
        return False  # reported when the mask is read for use
