"""Match masks with images by their names.

Without a pattern, a mask belongs to the image with the same path below its folder, or with the same name; or all masks
add the same ending to the names of the images ("_mask").
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from unicodedata import normalize

from trainer.data.imports.source.source_error import SourceError

Files = dict[str, list[str]]
"""Files of images, by path or name without suffix."""

COMMON_SHARE = 0.8
"""Share of the masks that must have one ending."""


@dataclass(frozen=True, slots=True)
class Matches:
    """The result.

    Attributes:
        masks: for each image, its masks, each with the class that {class} of the pattern stands for, or "".
        unmatched: masks without an image.
        rule: how they were matched: "{stem}_mask".
    """

    masks: Mapping[str, list[tuple[str, str]]]
    unmatched: Sequence[str]
    rule: str


def match_masks(images: Mapping[str, str], masks: Mapping[str, str], pattern: str) -> Matches:
    """Match masks with images.

    Args:
        images: path below the images' folder, without suffix, by file.
        masks: path below the masks' folder, with suffix, by file.
        pattern: with {stem} and maybe {class}; "" = by equal names or a common ending.

    Raises:
        SourceError: the pattern has no {stem}, or names fit several images.
    """
    by_path: Files = defaultdict(list)
    by_stem: Files = defaultdict(list)
    for file, path in images.items():
        by_path[_key(path)].append(file)
        by_stem[_key(PurePosixPath(path).name)].append(file)
    if pattern:
        found = {file: _by_pattern(pattern, path, by_path, by_stem) for file, path in masks.items()}
        return _collected(found, pattern)
    ending = common_ending(list(by_stem), [PurePosixPath(path).stem for path in masks.values()])
    found = {file: _by_ending(ending, path, by_path, by_stem) for file, path in masks.items()}
    return _collected(found, "{stem}" + ending)


def common_ending(stems: Sequence[str], mask_stems: Sequence[str]) -> str:
    """What most masks add to the names of images; "" if the names are equal, or nothing is common."""
    known, endings = set(stems), Counter[str]()
    for stem in mask_stems:
        if (end := _longest_start(stem, known)) is not None:
            endings[stem[end:]] += 1
    if not endings:
        return ""
    ending, count = endings.most_common(1)[0]
    return ending if count >= COMMON_SHARE * len(mask_stems) else ""


def _longest_start(stem: str, known: set[str]) -> int | None:
    """Length of the longest known name with which a stem starts."""
    return next((end for end in range(len(stem), 0, -1) if _key(stem[:end]) in known), None)


def _by_ending(ending: str, path: str, by_path: Files, by_stem: Files) -> tuple[str, str] | None:
    stem = PurePosixPath(path).with_suffix("").as_posix()
    if not stem.endswith(ending):
        return None
    image = _image(stem.removesuffix(ending) if ending else stem, by_path, by_stem)
    return (image, "") if image else None


def _image(path: str, by_path: Files, by_stem: Files) -> str | None:
    """The image of this path, or of this name in any folder. Raises SourceError if several have it."""
    named = by_path.get(_key(path)) or by_stem.get(_key(PurePosixPath(path).name), [])
    if len(named) > 1:
        raise SourceError(
            f"the mask {path} could belong to {named[0]} or {named[1]}; remove one of them, or put masks into folders "
            "that are called as those of the images"
        )
    return named[0] if named else None


def _by_pattern(pattern: str, path: str, by_path: Files, by_stem: Files) -> tuple[str, str] | None:
    candidates = [path, PurePosixPath(path).name]
    for candidate in candidates:
        for stem, name in placeholders(pattern, candidate):
            folder = PurePosixPath(path).parent.as_posix()
            wanted = stem if folder == "." or "/" in stem else f"{folder}/{stem}"
            if image := _image(wanted, by_path, by_stem):
                return image, name
    return None


def placeholders(pattern: str, path: str) -> Iterator[tuple[str, str]]:
    """What {stem} and {class} can stand for, the longest stem first."""
    if "{stem}" not in pattern or pattern.count("{stem}") > 1 or pattern.count("{class}") > 1:
        raise SourceError(f'--mask-pattern {pattern}: must have {{stem}} once, such as "{{stem}}_mask.png"')
    if not PurePosixPath(pattern).suffix:
        path = PurePosixPath(path).with_suffix("").as_posix()
    parts = re.split(r"(\{stem\}|\{class\})", pattern)
    if len(parts) == 3:
        start, end = parts[0], parts[2]
        if path.startswith(start) and path.endswith(end) and len(path) > len(start) + len(end):
            yield path[len(start) : len(path) - len(end)], ""
        return
    first, start, middle, end = parts[1], parts[0], parts[2], parts[4]
    if not (path.startswith(start) and path.endswith(end)) or not middle:
        return
    body = path[len(start) : len(path) - len(end)]
    cuts = [cut.start() for cut in re.finditer(f"(?={re.escape(middle)})", body)]
    for cut in reversed(cuts) if first == "{stem}" else cuts:
        left, right = body[:cut], body[cut + len(middle) :]
        if left and right:
            yield (left, right) if first == "{stem}" else (right, left)


def _collected(found: Mapping[str, tuple[str, str] | None], rule: str) -> Matches:
    masks: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for file, match in found.items():
        if match:
            masks[match[0]].append((file, match[1]))
    return Matches(dict(masks), [file for file, match in found.items() if match is None], rule)


def _key(name: str) -> str:
    return normalize("NFC", name).casefold()
