"""Read a data set folder (docs/training.md), or a folder of images only, for `push`."""

from __future__ import annotations

import csv
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from service.client.folders.image_paths import FoundImage, find_images
from service.client.wrong_usage import WrongUsage

IMAGES, MASKS, SPLITS, CLASSES, GROUPS = "images", "masks", "splits", "classes.toml", "groups.csv"
LABELLED, VAL, UNLABELLED, TEST = "labelled", "val", "unlabelled", "test"
IGNORE = 255
# Masks with these store something else than class ids.
ENCODED = ("masks", "reduce_zero", "ignore_values", "ignore_colors")


@dataclass(frozen=True, slots=True)
class FolderImage:
    """An image to send, with its label.

    Attributes:
        path: The image file.
        name: Its name in the data set: path below `images` without suffix.
        split: Split of its label; None: the service chooses.
        mask: File of its label; None: not labelled.
        group: Video, place or patient; None: none.
    """

    path: Path
    name: str
    split: Literal["labelled", "val"] | None
    mask: Path | None
    group: str | None


@dataclass(frozen=True, slots=True)
class ClassList:
    """Names of the classes, by id, and the value of pixels without a label."""

    names: tuple[str, ...]
    ignore_index: int


def read_folder(folder: Path, group: re.Pattern[str] | None) -> tuple[list[FolderImage], int]:
    """List the images to send; return them and the number of images of the test split, which are left out.

    Raises WrongUsage.
    """
    if not folder.is_dir():
        raise WrongUsage(f"{folder}: no such folder; give a data set or a folder of images.")
    is_dataset = (folder / IMAGES).is_dir()
    found = find_images([str(folder / IMAGES if is_dataset else folder)])
    split_of = _splits(folder / SPLITS) if is_dataset else {}
    names = {_name(image) for image in found}
    if missing := sorted(set(split_of) - names):
        raise WrongUsage(
            f"{folder / SPLITS} lists {len(missing)} images that do not exist, such as {missing[0]!r}: add them, or "
            "remove them from the lists."
        )
    sent = [image for image in found if split_of.get(_name(image)) != TEST]
    masks = folder / MASKS if is_dataset else None
    groups = _groups(folder / GROUPS, [_name(image) for image in sent], group)
    return [_folder_image(image, masks, split_of, groups) for image in sent], len(found) - len(sent)


def read_class_list(folder: Path) -> ClassList | None:
    """Read classes.toml; None: there is none. Raises WrongUsage if the masks do not store class ids."""
    path = folder / CLASSES
    if not path.is_file():
        return None
    try:
        table: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        names = tuple(str(entry["name"]) for entry in table["classes"])
        ignore_index = int(table.get("ignore_index", IGNORE))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WrongUsage(f"{path} cannot be read ({error!r}): see `maskloop check`.") from None
    stores_ids = table.get("masks", "ids") == "ids" and not any(table.get(key) for key in ENCODED[1:])
    if not stores_ids or any("values" in entry for entry in table["classes"]):
        raise WrongUsage(
            f"The masks of {folder} store colours or other values than class ids: convert the data set with `maskloop "
            "import`, then send the result."
        )
    return ClassList(names, ignore_index)


def _folder_image(
    image: FoundImage, masks: Path | None, split_of: dict[str, str], groups: dict[str, str]
) -> FolderImage:
    name = _name(image)
    split = split_of.get(name)
    mask = masks / f"{name}.png" if masks and split != UNLABELLED else None
    if mask is not None and split is None and not mask.is_file():
        mask = None
    sent: Literal["labelled", "val"] | None = "val" if split == VAL else "labelled" if split == LABELLED else None
    return FolderImage(image.path, name, sent, mask, groups.get(name))


def _groups(file: Path, names: list[str], pattern: re.Pattern[str] | None) -> dict[str, str]:
    """Group by name: what the pattern finds in names, or else what groups.csv says, as `pull` writes it."""
    if pattern is None:
        if not file.is_file():
            return {}
        with file.open(encoding="utf-8-sig", newline="") as opened:
            return {row["name"]: row["group"] for row in csv.DictReader(opened) if row.get("name") and row.get("group")}
    matches = {name: match for name in names if (match := pattern.search(name))}
    return {name: match[1] if pattern.groups else match[0] for name, match in matches.items()}


def _name(image: FoundImage) -> str:
    return image.name.with_suffix("").as_posix()


def _splits(folder: Path) -> dict[str, str]:
    """Split by name. An image of val or test is never anything else."""
    found: dict[str, str] = {}
    for split in (UNLABELLED, LABELLED, VAL, TEST):
        found.update(dict.fromkeys(_listed(folder / f"{split}.txt"), split))
    return found


def _listed(file: Path) -> Iterator[str]:
    if file.is_file():
        yield from filter(None, map(str.strip, file.read_text(encoding="utf-8-sig").splitlines()))
