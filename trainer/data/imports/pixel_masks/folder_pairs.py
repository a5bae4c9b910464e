"""Find folders of images with folders of masks beside them, and masks beside their images."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import PurePosixPath

from trainer.data.imports.pixel_masks.mask_names import common_ending, placeholders
from trainer.data.imports.source.annotated import SPLITS, Split
from trainer.data.imports.source.source_error import SourceError
from trainer.data.imports.source.source_folder import SourceFolder
from trainer.data.readers.directory_listing import SUFFIXES

MASK_SUFFIXES = (*SUFFIXES, ".gif")
IMAGE_FOLDERS = {"images", "image", "imgs", "img", "img_dir", "jpegimages", "photos", "rgb", "input", "inputs"}
MASK_FOLDERS = {
    "masks",
    "mask",
    "ann_dir",
    "annotations",
    "annotation",
    "labels",
    "label",
    "gt",
    "groundtruth",
    "ground_truth",
    "segmentation",
    "segmentations",
    "segmentationclass",
    "targets",
}
FOLDER_ENDINGS = ("annot", "_annot", "_masks", "_mask", "_labels", "_annotations", "_gt")
"""Endings of a folder of masks beside a folder of images: train and train_masks."""
ENDINGS = {"_mask", "_masks", "_label", "_labels", "_seg", "_segmentation", "_gt", "-mask", "_l", ".mask"}
"""Endings by which masks beside images are recognised, in lower case."""


@dataclass(frozen=True, slots=True)
class FolderPair:
    """A folder of images and one of masks.

    Attributes:
        images: folder of the images; "." is the root.
        masks: folder of the masks; the same if they are beside the images.
        image_files: images in it; without the masks.
        mask_files: masks in it.
    """

    images: str
    masks: str
    image_files: tuple[str, ...]
    mask_files: tuple[str, ...]


def find_pairs(source: SourceFolder) -> list[FolderPair]:
    """All pairs of folders with usual names, and masks beside images. Raises SourceError if names are ambiguous."""
    children: dict[str, list[str]] = defaultdict(list)
    for folder in source.folders():
        if folder != ".":
            children[PurePosixPath(folder).parent.as_posix()].append(folder)
    pairs = [pair for folder, below in children.items() for pair in _pairs_in(source, folder, below)]
    inner = [pair for pair in pairs if not any(_contains(other, pair) for other in pairs if other is not pair)]
    return inner or _beside(source, ".")


def named_pair(source: SourceFolder, images: str, masks: str, pattern: str) -> list[FolderPair]:
    """The pair that a user named; without `masks`, masks are beside the images. Raises SourceError."""
    image_folder, mask_folder = (_folder(source, name) for name in (images, masks or images))
    mask_files = source.below(mask_folder, MASK_SUFFIXES)
    image_files = source.images(image_folder)
    if image_folder == mask_folder:
        if not pattern:
            return _beside(source, image_folder)
        mask_files = _fitting(pattern, mask_files)
    elif mask_folder == "." or image_folder.startswith(f"{mask_folder}/"):
        mask_files = [file for file in mask_files if file not in set(image_files)]
    return [FolderPair(image_folder, mask_folder, *_without(image_files, mask_files))]


def split_of(file: str) -> Split | None:
    """The split that a folder of the path names; None if none does."""
    parts = [part.casefold() for part in PurePosixPath(file).parts[:-1]]
    return next((SPLITS[part] for part in parts if part in SPLITS), None)


def _fitting(pattern: str, files: Sequence[str]) -> list[str]:
    """Files whose names a pattern derives from the name of another file."""
    names = [(file, PurePosixPath(file)) for file in files]
    stems = {path.stem for _, path in names}

    def is_mask(path: PurePosixPath) -> bool:
        return any(stem in stems and stem != path.stem for stem, _ in placeholders(pattern, path.name))

    return [file for file, path in names if is_mask(path)]


def _without(images: Sequence[str], masks: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    is_mask = set(masks)
    return tuple(file for file in images if file not in is_mask), tuple(masks)


def _folder(source: SourceFolder, name: str) -> str:
    folder = PurePosixPath(name.replace("\\", "/")).as_posix().removeprefix("./") if name else "."
    if source.has_folder(folder):
        return folder
    # A path that a shell completed starts with that of the source.
    below = [each for each in source.folders() if each != "." and folder.endswith(f"/{each}")]
    if below:
        return max(below, key=len)
    known = ", ".join(each for each in source.folders() if each != ".")
    raise SourceError(f"{source.title}: has no folder {name} with files; it has {known or 'no folders'}")


def _pairs_in(source: SourceFolder, folder: str, children: Sequence[str]) -> Iterator[FolderPair]:
    images = [each for each in children if _name(each) in IMAGE_FOLDERS and source.images(each)]
    masks = [each for each in children if _name(each) in MASK_FOLDERS and source.below(each, MASK_SUFFIXES)]
    if len(images) > 1 or (images and len(masks) > 1):
        raise SourceError(
            f"{source.title}: {folder} has the folders {', '.join(images)} and {', '.join(masks)}; say which are meant "
            "with --images DIR --masks DIR"
        )
    if len(masks) == 1 and (found := source.images(images[0]) if images else _direct(source, folder)):
        first = images[0] if images else folder
        yield FolderPair(first, masks[0], *_without(found, source.below(masks[0], MASK_SUFFIXES)))
    known = set(children)
    for each, ending in product(children, FOLDER_ENDINGS):
        if (other := f"{each}{ending}") in known:
            yield FolderPair(each, other, *_without(source.images(each), source.below(other, MASK_SUFFIXES)))


def _beside(source: SourceFolder, folder: str) -> list[FolderPair]:
    """Masks beside their images: with a usual ending, or as PNG beside JPEG."""
    files = source.images(folder)
    masks = [file for file in files if any(PurePosixPath(file).stem.casefold().endswith(end) for end in ENDINGS)]
    images, masks_found = _without(files, masks)
    stems = {PurePosixPath(file).stem.casefold() for file in images}
    if masks and common_ending(sorted(stems), [PurePosixPath(file).stem for file in masks]):
        return [FolderPair(folder, folder, images, masks_found)]
    jpegs = {PurePosixPath(file).with_suffix("") for file in files if file.lower().endswith((".jpg", ".jpeg"))}
    pngs = [file for file in files if file.lower().endswith(".png") and PurePosixPath(file).with_suffix("") in jpegs]
    return [FolderPair(folder, folder, *_without(files, pngs))] if pngs else []


def _direct(source: SourceFolder, folder: str) -> list[str]:
    return [file for file in source.images(folder) if PurePosixPath(file).parent.as_posix() == folder]


def _name(folder: str) -> str:
    return PurePosixPath(folder).name.casefold()


def _contains(outer: FolderPair, inner: FolderPair) -> bool:
    """Whether a pair is inside the images or masks of another."""
    folders = (outer.images, outer.masks)
    return any(folder != "." and inner.images.startswith(f"{folder}/") for folder in folders)
