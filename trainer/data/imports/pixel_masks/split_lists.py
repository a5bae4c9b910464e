"""Lists of names in text files that say which split an image belongs to."""

from pathlib import PurePosixPath
from unicodedata import normalize

from trainer.data.imports.source.annotated import SPLITS, Split
from trainer.data.imports.source.source_folder import SourceFolder

MAX_BYTES = 64 << 20


def listed_splits(source: SourceFolder) -> dict[str, Split]:
    """Split by image name (path without suffix, and name alone), from train.txt, val.txt and so on."""
    splits: dict[str, Split] = {}
    for file in source.below(".", (".txt",)):
        split = SPLITS.get(PurePosixPath(file).stem.casefold())
        path = source.path(file)
        if split is None or path.stat().st_size > MAX_BYTES:
            continue
        for line in path.read_text(encoding="utf-8-sig", errors="replace").splitlines():
            if words := line.split():
                source.used[file] = "list of names"
                # A line may name a mask after the image; a name may have spaces.
                splits |= dict.fromkeys((*keys(line.strip()), *keys(words[0])), split)
    return splits


def keys(path: str) -> tuple[str, str]:
    """The forms in which lists name an image: its path, and its name, without suffix."""
    plain = PurePosixPath(normalize("NFC", path.replace("\\", "/")).casefold())
    # A dot in a name is no suffix: "frame.0001".
    stem = plain.with_suffix("") if plain.suffix[1:].isalpha() else plain
    return stem.as_posix(), stem.name
