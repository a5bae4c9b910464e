"""Names of the images in the data set: those of the source, made unique.

An image keeps its name, with the folders below the images' folder. If two would get the same name, or names that differ
only in upper and lower case, each gets its path within the source instead; if they still do, each gets its suffix.
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from unicodedata import normalize

from trainer.data.imports.source.annotated import Annotated
from trainer.data.imports.source.loss_report import Losses

RENAMED = "two images have one name; each gets the folder or suffix of the source as a part of it"
UNSAFE = re.compile(r"[\\\x00-\x1f\x7f]")
"""Characters that a split file or a file system does not keep."""


def output_names(images: Sequence[Annotated], losses: Losses) -> list[str]:
    """The name of each image, in the same order: relative, with "/" between folders, without suffix."""
    names = [safe_name(image.name) for image in images]
    for rename in (_path_name, _suffix_name, None):
        twice = {key for key, count in Counter(map(_key, names)).items() if count > 1}
        if not twice:
            break
        for index, image in enumerate(images):
            if _key(names[index]) not in twice:
                continue
            new = rename(image) if rename else f"{names[index]}_{index}"
            if rename:
                losses.add("renamed", RENAMED, f"{image.path} is {new}")
            names[index] = new
    return names


def safe_name(name: str) -> str:
    """A relative name without characters that split files or file systems do not keep."""
    parts = [UNSAFE.sub("_", part).strip() for part in PurePosixPath(normalize("NFC", name)).parts]
    return "/".join(part.lstrip(".") or "_" for part in parts if part not in {"", "/", "..", "."}) or "_"


def _path_name(image: Annotated) -> str:
    return safe_name(PurePosixPath(image.path).with_suffix("").as_posix())


def _suffix_name(image: Annotated) -> str:
    path = PurePosixPath(image.path)
    return safe_name(path.with_name(f"{path.stem}_{path.suffix.lstrip('.').lower()}").as_posix())


def _key(name: str) -> str:
    return normalize("NFC", name).casefold()
