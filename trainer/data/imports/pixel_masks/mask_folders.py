"""Any folders of images and masks: the format `masks`."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Literal

from trainer.counted import counted
from trainer.data.imports.import_options import ImportOptions
from trainer.data.imports.known_format import KnownFormat
from trainer.data.imports.pixel_masks.folder_pairs import FolderPair, find_pairs, named_pair, split_of
from trainer.data.imports.pixel_masks.mask_label import BinaryMasks, MaskFile, PixelMask
from trainer.data.imports.pixel_masks.mask_names import Matches, match_masks
from trainer.data.imports.pixel_masks.read_labels import read_labels
from trainer.data.imports.pixel_masks.split_lists import keys, listed_splits
from trainer.data.imports.source.annotated import Annotated, Imported, Label, SourceClass, Split
from trainer.data.imports.source.loss_report import Losses
from trainer.data.imports.source.source_error import SourceError
from trainer.data.imports.source.source_folder import SourceFolder

NO_IMAGE = "a mask has no image and is not imported"
SEVERAL_MASKS = "an image has several masks; the first in the order of their names is used"
UNUSED_IMAGE = "an image is outside the folders of images and is not imported"

UNLABELLED = {"unlabelled", "unlabeled", "unannotated"}
"""Folders of images without masks, in lower case."""

Pair = tuple[FolderPair, Matches]


def find(source: SourceFolder) -> str | None:
    """See KnownFormat."""
    pairs = find_pairs(source)
    if not pairs:
        return None
    masks = counted(sum(len(pair.mask_files) for pair in pairs), "mask", "masks")
    return f"{masks} in {', '.join(pair.masks for pair in pairs)} for images in {', '.join(p.images for p in pairs)}"


def read(source: SourceFolder, options: ImportOptions, losses: Losses) -> Imported:
    """See KnownFormat."""
    is_named = options.images or options.masks or options.mask_pattern
    pairs = named_pair(source, options.images, options.masks, options.mask_pattern) if is_named else find_pairs(source)
    if not pairs:
        raise SourceError(f"{source.title}: has no folders of images and masks; name them: --images DIR --masks DIR")
    matched = [(pair, _matches(source, pair, options.mask_pattern)) for pair in pairs]
    outside = _images_outside(source, pairs)
    _report(matched, [file for file, folder in outside.items() if not folder], losses)
    has_rest = "{class}" in options.mask_pattern
    classes, labels = (
        _binary_labels(source, matched, options)
        if has_rest
        else read_labels(_chosen(source, matched, losses), source, options, losses)
    )
    images = [_annotated(source, pair.images, labels, file) for pair, _ in matched for file in pair.image_files]
    unlabelled = [_annotated(source, folder, {}, file) for file, folder in outside.items() if folder]
    return Imported(classes=classes, images=[*_with_lists(source, images), *unlabelled], has_rest=has_rest)


def _matches(source: SourceFolder, pair: FolderPair, pattern: str) -> Matches:
    images = {file: PurePosixPath(_below(file, pair.images)).with_suffix("").as_posix() for file in pair.image_files}
    matches = match_masks(images, {file: _below(file, pair.masks) for file in pair.mask_files}, pattern)
    if not images:
        raise SourceError(f"{source.title}: there are no images in {pair.images}; name their folder with --images DIR")
    if not matches.masks:
        mask = PurePosixPath(pair.mask_files[0]).name if pair.mask_files else f"nothing in {pair.masks}"
        raise SourceError(
            f"{source.title}: no mask belongs to an image; an image is called "
            f"{PurePosixPath(pair.image_files[0]).name}, a mask {mask}; say how they are named: "
            '--mask-pattern "{stem}_mask.png", or "{stem}_{class}.png" for one mask for each class'
        )
    return matches


def _below(file: str, folder: str) -> str:
    return file if folder == "." else file.removeprefix(f"{folder}/")


def _images_outside(source: SourceFolder, pairs: Sequence[FolderPair]) -> dict[str, str]:
    """Images in none of the pairs, and the folder that calls them unlabelled; "" if none does."""
    known = {file for pair in pairs for file in (*pair.image_files, *pair.mask_files)}
    outside: dict[str, str] = {}
    for file in source.images():
        if file not in known:
            above = [each for each in PurePosixPath(file).parents if each.name.casefold() in UNLABELLED]
            outside[file] = above[0].as_posix() if above else ""
    return outside


def _report(matched: Sequence[Pair], unused: Sequence[str], losses: Losses) -> None:
    for _, matches in matched:
        for file in matches.unmatched:
            losses.add("annotation without image", NO_IMAGE, file, remedy="add the image, or use --mask-pattern")
    for file in unused:
        remedy = "move them into a folder called unlabelled to train with them"
        losses.add("unused image", UNUSED_IMAGE, file, remedy=remedy)


def _binary_labels(
    source: SourceFolder, matched: Sequence[Pair], options: ImportOptions
) -> tuple[Sequence[SourceClass], dict[str, Label]]:
    """One black-and-white mask for each image and class; the classes are those of the names, sorted."""
    found = {name for _, matches in matched for masks in matches.masks.values() for _, name in masks}
    names = list(options.class_names) or sorted(found)
    if unknown := sorted(found - set(names)):
        raise SourceError(f"--class-names: lacks {unknown[0]!r}, which names of masks have; add it")
    labels: dict[str, Label] = {}
    for _, matches in matched:
        for image, masks in matches.masks.items():
            ordered = sorted(masks, key=lambda mask: names.index(mask[1]))
            files = [(_mask_file(source, file, image), names.index(name)) for file, name in ordered]
            labels[image] = BinaryMasks(files)
    return [SourceClass(name) for name in names], labels


def _chosen(source: SourceFolder, matched: Sequence[Pair], losses: Losses) -> dict[str, MaskFile]:
    """One mask for each image."""
    chosen: dict[str, MaskFile] = {}
    for _, matches in matched:
        for image, masks in matches.masks.items():
            files = sorted(file for file, _ in masks)
            if len(files) > 1:
                remedy = 'one mask for each class: --mask-pattern "{stem}_{class}.png"'
                losses.add("several masks", SEVERAL_MASKS, f"{image}: {', '.join(files)}", remedy=remedy)
            chosen[image] = _mask_file(source, files[0], image)
    return chosen


def _mask_file(source: SourceFolder, file: str, image: str) -> MaskFile:
    return MaskFile(source.path(file), file, source.path(image))


def _annotated(source: SourceFolder, folder: str, labels: Mapping[str, Label], file: str) -> Annotated:
    label = labels.get(file)
    below = PurePosixPath(_below(file, folder)).with_suffix("")
    split = split_of(file)
    # The folder of a split is no part of the name.
    parts = [part for part in below.parts[:-1] if split is None or split_of(f"{part}/x") is None]
    name = "/".join([*parts, below.name])
    masks = [mask for mask, _ in _masks(label)] if label else []
    label_files = tuple(mask.file for mask in masks if not callable(mask.file))
    path = source.path(file)
    return Annotated(image=path, path=file, name=name, label=label, split=split or "", label_files=label_files)


def _masks(label: Label) -> Sequence[tuple[MaskFile, int]]:
    if isinstance(label, BinaryMasks):
        return label.masks
    return [(label.mask, 0)] if isinstance(label, PixelMask) else []


def _with_lists(source: SourceFolder, images: Sequence[Annotated]) -> list[Annotated]:
    """The images with the splits of lists of names, if their folders name none."""
    if any(image.split for image in images):
        return list(images)
    splits: dict[str, Split | Literal[""]] = {**listed_splits(source)}
    by_name: dict[str, list[Annotated]] = defaultdict(list)
    for image in images:
        by_name[keys(image.path)[1]].append(image)
    found = []
    for image in images:
        path, name = keys(image.path)
        alone = len(by_name[name]) == 1
        candidates = (path, keys(image.name)[0], *([name] if alone else []))
        split = next((splits[each] for each in candidates if each in splits), image.split)
        found.append(replace(image, split=split))
    return found


MASK_FOLDERS_FORMAT = KnownFormat(
    name="masks",
    title="folders of images and masks",
    looked_for="folders such as images and masks, img_dir and ann_dir, images and annotations; or NAME_mask.png beside "
    "NAME.jpg",
    find=find,
    read=read,
    generic=True,
)
