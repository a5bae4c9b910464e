"""What is wrong with a data set, and what to do about it: one rule each, from the facts that check.py gathered."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

import numpy as np

from trainer.data.check import LEARNT, TAUGHT, Facts, Looked, Split

RARE = 0.01
"""Classes of fewer labelled pixels than this part are called rare."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know.

    Attributes:
        kind: what it is, in a word or two; stable, for programs.
        severity: an error keeps a run from starting or from meaning anything; a warning does not.
        message: what was found.
        names: which images, classes or files; all of them.
        remedy: what to do.
    """

    kind: str
    severity: Literal["error", "warning"]
    message: str
    names: tuple[str, ...]
    remedy: str


def findings(facts: Facts, crop: tuple[int, int]) -> list[Finding]:
    """Everything that is to be said of a data set, errors first.

    Args:
        facts: what was seen.
        crop: height and width of the training crop that is planned, in pixels.
    """
    rules: tuple[Callable[[Facts], Iterator[Finding]], ...] = (
        _unreadable_splits,
        _missing_images,
        _missing_masks,
        _unusable,
        _shared,
        _alike,
        _empty_masks,
        _absent_classes,
        _rare_classes,
    )
    found = [finding for rule in rules for finding in rule(facts)] + list(_small(facts, crop))
    return sorted(found, key=lambda finding: finding.severity == "warning")


def _unreadable_splits(facts: Facts) -> Iterator[Finding]:
    for split in facts.splits:
        if split.problem:
            yield Finding("split", "error", split.problem, (split.name,), "mend the list")


def _missing_images(facts: Facts) -> Iterator[Finding]:
    for split in facts.splits:
        if split.missing:
            message = f"{split.name}: {len(split.missing)} images do not exist"
            yield Finding("missing image", "error", message, split.missing, split.remedy)


def _missing_masks(facts: Facts) -> Iterator[Finding]:
    for split in facts.splits:
        bare = [looked for looked in facts.of(split.samples) if not looked.labelled]
        # A test set may come without any masks, and a list of another kind may be of any images.
        meant = split.role != "labelled" and (split.role != "val" or len(bare) == len(split.samples))
        if bare and not meant:
            names = tuple(str(looked.sample.mask or looked.sample.image) for looked in bare)
            message = f"{split.name}: {len(bare)} of {len(split.samples)} images have no mask"
            remedy = "add the masks, or move these images to the unlabelled split"
            yield Finding("missing mask", "error", message, names, remedy)


def _unusable(facts: Facts) -> Iterator[Finding]:
    for looked in facts.looked.values():
        if looked.problem:
            kind = "unreadable image" if looked.size is None else "unusable mask"
            # The message of an ImageError says what to do by itself.
            yield Finding(kind, "error", looked.problem, (looked.sample.name,), "")


def _shared(facts: Facts) -> Iterator[Finding]:
    """Images that are in two splits which must not share any, as the same file or as the same pixels."""
    for first, second in _apart(facts.splits):
        theirs = _by_pixels(facts.of(second.samples))
        pairs = [
            (ours, other) for ours in facts.of(first.samples) for other in theirs.get(ours.pixels, ()) if ours.pixels
        ]
        if pairs:
            names = tuple(_pair(ours, other) for ours, other in pairs)
            message = f"{len(pairs)} images are in {first.name} and in {second.name}"
            remedy = (
                f"take them out of {first.name}: what is learnt from must not be what is judged by, or labelled twice"
            )
            yield Finding("shared", "error", message, names, remedy)


def _apart(splits: Iterable[Split]) -> Iterator[tuple[Split, Split]]:
    """Pairs that must share no image: labelled and unlabelled of one setting, and either with a val."""
    for first in splits:
        for second in splits:
            one_setting = PurePosixPath(first.name).parent == PurePosixPath(second.name).parent
            if (first.role == "unlabelled" and second.role == "labelled" and one_setting) or (
                first.role in LEARNT and second.role == "val"
            ):
                yield first, second


def _alike(facts: Facts) -> Iterator[Finding]:
    """The same pixels under two names, in splits that may share images."""
    for split in facts.splits:
        groups = [group for group in _by_pixels(facts.of(split.samples)).values() if len(group) > 1]
        if groups:
            names = tuple(" = ".join(looked.sample.name for looked in group) for group in groups)
            message = f"{split.name}: {len(groups)} images occur under several names"
            yield Finding("alike", "warning", message, names, "keep one of each; the others count double in training")


def _empty_masks(facts: Facts) -> Iterator[Finding]:
    empty = [looked for looked in facts.looked.values() if looked.counts_K is not None and not looked.counts_K.any()]
    if empty:
        names = tuple(looked.sample.name for looked in empty)
        remedy = "label them, or move them to the unlabelled split"
        yield Finding("empty mask", "warning", f"{len(empty)} masks are ignored as a whole", names, remedy)


def _absent_classes(facts: Facts) -> Iterator[Finding]:
    remedies = {
        "labelled": "label images that show them, or take them out of classes.toml: they cannot be learnt",
        "val": "add images that show them: mIoU says nothing about them",
    }
    for role, counts_K in (("labelled", facts.counts(*TAUGHT)), ("val", facts.counts("val"))):
        absent = tuple(name for name, count in zip(facts.dataset.taxonomy.names, counts_K, strict=True) if not count)
        if absent and counts_K.any():
            message = f"{len(absent)} classes are absent from the masks of {role}"
            yield Finding("absent class", "warning", message, absent, remedies[role])


def _rare_classes(facts: Facts) -> Iterator[Finding]:
    counts_K = facts.counts(*TAUGHT)
    share_K = counts_K / max(int(counts_K.sum()), 1)
    rare = [
        (name, share) for name, share in zip(facts.dataset.taxonomy.names, share_K, strict=True) if 0 < share < RARE
    ]
    if rare:
        names = tuple(f"{name} {share:.2%}" for name, share in rare)
        remedy = "label more of them, or give them weight: loss.class_weights, loss.class_balance"
        yield Finding(
            "rare class", "warning", f"{len(rare)} classes have less than {RARE:.0%} of the labels", names, remedy
        )


def _small(facts: Facts, crop: tuple[int, int]) -> Iterator[Finding]:
    learnt = [(looked, looked.size) for looked in facts.in_role(*LEARNT) if looked.size]
    small = [(looked, size) for looked, size in learnt if np.any(np.less(size, crop))]
    if small:
        names = tuple(f"{looked.sample.name} {size[1]}x{size[0]}" for looked, size in small)
        message = (
            f"{len(small)} of {len(learnt)} training images are smaller than the crop of {crop[1]}x{crop[0]} pixels"
        )
        remedy = "lower data.crop, or set inference.long_side: the missing part is padded and teaches nothing"
        yield Finding("small image", "warning", message, names, remedy)


def _by_pixels(looked: Iterable[Looked]) -> dict[str, list[Looked]]:
    groups: dict[str, list[Looked]] = defaultdict(list)
    for one in looked:
        if one.pixels:
            groups[one.pixels].append(one)
    return groups


def _pair(first: Looked, second: Looked) -> str:
    if first.sample.image == second.sample.image:
        return first.sample.name
    same = "the same file" if first.stored == second.stored else "the same pixels"
    return f"{first.sample.name} = {second.sample.name} ({same})"
