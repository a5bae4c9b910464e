"""Errors and warnings about a data set, each with a remedy."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from trainer.counted import counted
from trainer.data.check.inspection import LABELLED_ROLES, TRAINING_ROLES, ImageRecord, Inspection, SplitRecord
from trainer.data.check.label_check import find_fault
from trainer.data.readers.split_files import find_split_file

NEARLY_BLACK = 16
"""Values of 0..255 below which an image looks black: those of 12-bit numbers in a file of 16 bits."""

MAX_NAMED = 3
"""Split files that a remedy names."""

RARE = 0.01
"""Classes with a smaller share of the labelled pixels are rare."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One error or warning.

    Attributes:
        kind: stable identifier for programs.
        severity: an error prevents a run or makes its scores meaningless; a warning does not.
        names: all affected images, classes or files.
        remedy: "" if the message contains it.
    """

    kind: str
    severity: Literal["error", "warning"]
    message: str
    names: tuple[str, ...]
    remedy: str


def find_problems(inspection: Inspection, crop: tuple[int, int] | None = None) -> list[Problem]:
    """All problems of a data set, errors first; `crop` is the planned (height, width), in pixels, if it is known."""
    rules: tuple[Callable[[Inspection], Iterator[Problem]], ...] = (
        _unreadable_splits,
        _missing_splits,
        _missing_images,
        _missing_masks,
        _unusable_files,
        _undeclared_ranges,
        _nearly_black_images,
        _shared_images,
        _duplicate_images,
        _useless_labels,
        _empty_masks,
        _absent_classes,
        _rare_classes,
    )
    found = [problem for rule in rules for problem in rule(inspection)]
    found += _small_images(inspection, crop) if crop else ()
    return sorted((problem for problem in found if problem.names), key=lambda problem: problem.severity == "warning")


def _unreadable_splits(inspection: Inspection) -> Iterator[Problem]:
    for split in inspection.splits:
        if split.problem:
            yield Problem("split", "error", split.problem, (split.name,), "correct the split file")


def _missing_splits(inspection: Inspection) -> Iterator[Problem]:
    """Roles that no split has. A split of another name may have one in the recipe, so it is a warning then."""
    roles = {split.role for split in inspection.splits}
    severity: Literal["error", "warning"] = "warning" if "other" in roles else "error"
    known = ", ".join(split.name for split in inspection.splits)
    if not roles & {*LABELLED_ROLES}:
        remedy = "list the images that have masks in splits/labelled.txt"
        yield Problem("missing split", severity, f"no split is labelled: {known}", ("labelled",), remedy)
    if "val" not in roles:
        remedy = (
            _how_to_validate(inspection) + '; without it, only a recipe with data.val = "" trains, and has no score'
        )
        yield Problem("missing split", "warning", f"no split is for validation: {known}", ("val",), remedy)
    if not roles & {"unlabelled", "train"}:
        remedy = (
            "list the images without masks in splits/unlabelled.txt; without it, only method = supervised can train"
        )
        yield Problem("missing split", "warning", f"no split is unlabelled: {known}", ("unlabelled",), remedy)


def _how_to_validate(inspection: Inspection) -> str:
    """Name what a layout has: a list to move names from, or folders of its own."""
    folder = inspection.dataset.split_folder
    labelled = [split.name for split in inspection.splits if split.role in LABELLED_ROLES]
    files = [find_split_file(folder, name) for name in labelled]
    if not all(files):
        return inspection.dataset.how_to_validate
    lists = " or ".join(f"{folder.name}/{path.relative_to(folder).as_posix()}" for path in files[:MAX_NAMED] if path)
    return f"list some images with masks in {folder.name}/val.txt" + (f" instead of {lists}" if lists else "")


def _missing_images(inspection: Inspection) -> Iterator[Problem]:
    for split in inspection.splits:
        message = f"{split.name}: {counted(len(split.missing), 'image does not exist', 'images do not exist')}"
        yield Problem("missing image", "error", message, split.missing, split.remedy)


def _missing_masks(inspection: Inspection) -> Iterator[Problem]:
    for split in inspection.splits:
        unlabelled = [record for record in inspection.records_of(split.samples) if not record.has_mask]
        # A test set may have no masks at all.
        required = split.role == "labelled" or (split.role == "val" and len(unlabelled) < len(split.samples))
        if required:
            names = tuple(str(record.sample.mask or record.sample.image) for record in unlabelled)
            message = f"{split.name}: the masks of {len(unlabelled)} of {len(split.samples)} images are missing"
            remedy = _other_masks(unlabelled) or "add the masks, or move these images to the unlabelled split"
            yield Problem("missing mask", "error", message, names, remedy)


def _other_masks(records: Iterable[ImageRecord]) -> str | None:
    """Remedy if a mask exists under another extension, or in other upper and lower case."""
    folders: dict[Path, dict[str, Path]] = {}
    for mask in (record.sample.mask for record in records if record.sample.mask):
        if mask.parent not in folders:
            folders[mask.parent] = _files_by_stem(mask.parent)
        if found := folders[mask.parent].get(mask.stem.casefold()):
            if found.suffix.lower() == ".png":
                return f"{found} differs in upper and lower case: rename it to {mask.name}"
            reason = (
                "since JPEG changes class ids" if found.suffix.lower() in (".jpg", ".jpeg") else "with the same ids"
            )
            return f"{found} is no PNG: export the masks as PNG, {reason}"
    return None


def _files_by_stem(folder: Path) -> dict[str, Path]:
    files = sorted(folder.iterdir(), reverse=True) if folder.is_dir() else []
    return {path.stem.casefold(): path for path in files}


def _unusable_files(inspection: Inspection) -> Iterator[Problem]:
    for record in inspection.records.values():
        if record.problem:
            kind = "unreadable image" if record.size is None else "unusable mask"
            # An ImageError's message has the remedy.
            yield Problem(kind, "error", record.problem, (record.sample.name,), "")


def _undeclared_ranges(inspection: Inspection) -> Iterator[Problem]:
    names = tuple(record.sample.name for record in inspection.records.values() if record.undeclared)
    message = counted(len(names), "image stores numbers", "images store numbers")
    message += " (floats, 32 or 12 bits) without saying which are black and white"
    # Not 1e-05: after a minus, argparse would take it for an option.
    low, high = (np.format_float_positional(value, trim="0") for value in inspection.proposed_range or (0.0, 1.0))
    remedy = (
        f"nearly all values are between these: add range = [{low}, {high}] to [data] in the recipe, and --range {low} "
        f"{high} to this command"
    )
    yield Problem("undeclared range", "error", message, names, remedy)


def _nearly_black_images(inspection: Inspection) -> Iterator[Problem]:
    records = [record for record in inspection.records.values() if record.size and not record.undeclared]
    names = tuple(record.sample.name for record in records if 0 < record.brightest < NEARLY_BLACK)
    message = counted(len(names), "image is nearly black", "images are nearly black")
    message += f": no value exceeds {NEARLY_BLACK - 1} of 255"
    remedy = "if they hold 12-bit numbers in 16 bits, add range = [0, 4095] to [data] in the recipe"
    yield Problem("nearly black", "warning", message, names, remedy)


def _shared_images(inspection: Inspection) -> Iterator[Problem]:
    """Images in two splits that must be disjoint, by their pixels."""
    for first, second in _disjoint_pairs(inspection.splits):
        others = _by_pixels(inspection.records_of(second.samples))
        names = tuple(
            _describe_pair(record, other)
            for record in inspection.records_of(first.samples)
            for other in others.get(record.pixel_sha256, ())
        )
        message = f"{first.name} and {second.name} share {len(names)} of their images"
        remedy = f"remove them from {first.name}: an image must have one role, and validation must not be trained on"
        yield Problem("shared", "error", message, names, remedy)


def _disjoint_pairs(splits: Iterable[SplitRecord]) -> Iterator[tuple[SplitRecord, SplitRecord]]:
    """Pairs that must share no image: labelled and unlabelled of one setting, and any training split with a val."""
    for first in splits:
        for second in splits:
            same_setting = PurePosixPath(first.name).parent == PurePosixPath(second.name).parent
            if (first.role == "unlabelled" and second.role == "labelled" and same_setting) or (
                first.role in TRAINING_ROLES and second.role == "val"
            ):
                yield first, second


def _duplicate_images(inspection: Inspection) -> Iterator[Problem]:
    for split in inspection.splits:
        groups = [group for group in _by_pixels(inspection.records_of(split.samples)).values() if len(group) > 1]
        names = tuple(" = ".join(record.sample.name for record in group) for group in groups)
        message = f"{split.name}: {counted(len(groups), 'image occurs', 'images occur')} under several names"
        remedy = "keep one of each; duplicates count more than once in training"
        yield Problem("duplicate", "warning", message, names, remedy)


def _useless_labels(inspection: Inspection) -> Iterator[Problem]:
    for split in inspection.splits:
        training = split.role in LABELLED_ROLES
        if training or split.role == "val":
            counts = inspection.label_counts(inspection.records_of(split.samples))
            if fault := find_fault(inspection.dataset, split.name, counts, training=training):
                yield Problem("useless labels", fault.severity, fault.message, (split.name,), fault.remedy)


def _empty_masks(inspection: Inspection) -> Iterator[Problem]:
    masks = [(record.sample.name, record.counts) for record in inspection.records.values() if record.counts]
    names = tuple(name for name, counts in masks if not counts.classes_K.any())
    remedy = "label them, or move them to the unlabelled split"
    message = f"{counted(len(names), 'mask contains', 'masks contain')} ignored pixels only"
    yield Problem("empty mask", "warning", message, names, remedy)


def _absent_classes(inspection: Inspection) -> Iterator[Problem]:
    remedies = {
        "labelled": "label images that show them, or use a classes.toml without them: they cannot be learned",
        "val": "add images that show them: mIoU leaves them out, or counts 0 if they are predicted",
    }
    counts = {"labelled": inspection.class_counts(*LABELLED_ROLES), "val": inspection.class_counts("val")}
    for role, counts_K in counts.items():
        # With one class, or none, there is an error already.
        if np.count_nonzero(counts_K) > (role == "labelled"):
            names = inspection.dataset.taxonomy.names
            absent = tuple(name for name, count in zip(names, counts_K, strict=True) if not count)
            message = f"{counted(len(absent), 'class does not', 'classes do not')} occur in the masks of {role}"
            yield Problem("absent class", "warning", message, absent, remedies[role])


def _rare_classes(inspection: Inspection) -> Iterator[Problem]:
    counts_K = inspection.class_counts(*LABELLED_ROLES)
    share_K = counts_K / max(int(counts_K.sum()), 1)
    pairs = zip(inspection.dataset.taxonomy.names, share_K, strict=True)
    rare = tuple(f"{name} {share:.2%}" for name, share in pairs if 0 < share < RARE)
    message = f"{len(rare)} of {len(share_K)} classes with less than {RARE:.0%} of the labelled pixels"
    remedy = "label more of them, or increase their weight: loss.class_weights, loss.class_balance"
    yield Problem("rare class", "warning", message, rare, remedy)


def _small_images(inspection: Inspection, crop: tuple[int, int]) -> Iterator[Problem]:
    training = [(record, record.size) for record in inspection.with_role(*TRAINING_ROLES) if record.size]
    small = tuple(f"{record.sample.name} {w}x{h}" for record, (h, w) in training if h < crop[0] or w < crop[1])
    sizes = f"smaller than the crop of {crop[1]}x{crop[0]} pixels"
    message = f"{len(small)} of {len(training)} training images are {sizes}"
    remedy = "lower data.crop, or set inference.long_side: the rest of the crop is padding"
    yield Problem("small image", "warning", message, small, remedy)


def _by_pixels(records: Iterable[ImageRecord]) -> dict[str, list[ImageRecord]]:
    groups: dict[str, list[ImageRecord]] = defaultdict(list)
    for record in records:
        if record.pixel_sha256:
            groups[record.pixel_sha256].append(record)
    return groups


def _describe_pair(first: ImageRecord, second: ImageRecord) -> str:
    if first.sample.image == second.sample.image:
        return first.sample.name
    same = "the same file" if first.file_sha256 == second.file_sha256 else "the same pixels"
    return f"{first.sample.name} = {second.sample.name} ({same})"
