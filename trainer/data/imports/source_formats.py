"""Find out which format a source has."""

from collections.abc import Sequence
from typing import NamedTuple

from trainer.data.imports.annotation_files.known_annotations import ANNOTATION_FORMATS
from trainer.data.imports.import_options import ImportOptions
from trainer.data.imports.known_format import KnownFormat
from trainer.data.imports.pixel_masks.known_masks import MASK_FORMATS
from trainer.data.imports.source.source_error import SourceError
from trainer.data.imports.source.source_folder import SourceFolder

FORMATS: tuple[KnownFormat, ...] = (*ANNOTATION_FORMATS, *MASK_FORMATS)
MASKS = "masks"
"""The format of any two folders, which --masks and --mask-pattern imply."""


class Found(NamedTuple):
    """A format, and the evidence for it; "" if the user named it."""

    format: KnownFormat
    evidence: str


def find_format(source: SourceFolder, options: ImportOptions) -> Found:
    """The format of a source. Raises SourceError if none fits, or several do."""
    named = options.format
    if named == "auto" and (options.masks or options.images or options.mask_pattern):
        named = MASKS
    if named != "auto":
        return Found(_named(named), "")
    found = _evidence(source, generic=False) or _evidence(source, generic=True)
    if not found:
        raise SourceError(_unknown(source))
    if len(found) > 1:
        raise SourceError(_ambiguous(source, found))
    return found[0]


def _evidence(source: SourceFolder, *, generic: bool) -> list[Found]:
    formats = [each for each in FORMATS if each.generic == generic]
    return [Found(each, evidence) for each in formats if (evidence := each.find(source))]


def _named(name: str) -> KnownFormat:
    for each in FORMATS:
        if each.name == name:
            return each
    raise SourceError(f"--format {name}: is not known; known are {', '.join(each.name for each in FORMATS)}")


def _ambiguous(source: SourceFolder, found: Sequence[Found]) -> str:
    lines = [f"--format {each.format.name}: {each.evidence} ({each.format.title})" for each in found]
    return f"{source.title}: could be read in several ways; say which one is meant:\n  " + "\n  ".join(lines)


def _unknown(source: SourceFolder) -> str:
    lines = [f"{each.name}: {each.looked_for}" for each in FORMATS]
    return (
        f"{source.title}: none of the known formats was found among {len(source.files)} files. These were looked for:\n"
        "  " + "\n  ".join(lines) + "\nName the format with --format, or the folders of images and masks with --images "
        "DIR --masks DIR."
    )
