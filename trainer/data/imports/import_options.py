"""What a user can decide about an import."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """Options of an import; each is a flag of the command."""

    format: str = "auto"
    """Name of a format, or "auto"."""
    images: str = ""
    """Folder of the images within the source; only for the format `masks`."""
    masks: str = ""
    """Folder of the masks within the source; only for the format `masks`."""
    mask_pattern: str = ""
    """Name of a mask, with {stem} for the image's name and {class} for a class; only for the format `masks`."""
    classes: Path | None = None
    """File with the list of classes, where the source has none."""
    class_names: Sequence[str] = ()
    """Names of the classes in the order of their values, where the source has none."""
    ignore_classes: frozenset[str] = frozenset()
    """Classes whose pixels are ignored."""
    ignore_values: tuple[int, ...] = ()
    """Values of masks that are ignored; only for the format `masks`."""
    rest: Literal["background", "ignored"] = "background"
    """What the pixels are that no region covers."""
    empty: Literal["unlabelled", "background"] = "unlabelled"
    """What images without an annotation are."""
    val_share: float = 0.2
    """Share of the labelled images that are drawn for validation, if the source has no such split; 0..1."""
    seed: int = 0
    """Of the drawing."""
    link: bool = False
    """Whether images are hard links to those of the source where the file system can, instead of copies."""
    max_unpacked_bytes: int = 64 << 30
    """Limit for the files of an archive."""
    progress: bool = True
    """Whether a terminal shows a progress bar."""
