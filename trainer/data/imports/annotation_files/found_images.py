"""What annotation files say about images, matched with the files of the source.

An annotation file names an image in many ways: the base name decides, and folders only where it is not unique.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from trainer.data.imports.annotation_files.checked_values import ContentError
from trainer.data.imports.annotation_files.found_regions import FoundRegion, RegionsLabel
from trainer.data.imports.drawing.drawn_regions import OVERLAP
from trainer.data.imports.source.annotated import SPLITS, Annotated, Imported, Label, Size, SourceClass, Split
from trainer.data.imports.source.loss_report import Losses
from trainer.data.imports.source.source_error import SourceError
from trainer.data.imports.source.source_folder import SourceFolder

NO_IMAGE = "an annotated image is not in the source; its annotations are not imported"
SEVERAL = "an annotated image could be one of several files; its annotations are not imported"
SHARED = "annotations of images in different folders fit one file; they are not imported"
BY_STEM = "an annotated image is in the source with another suffix; that file is used"
TWICE = "an image is annotated in several places; the later annotations are drawn over the earlier ones"
IMAGE_FOLDERS = {"images", "image", "img", "imgs", "jpegimages", "photographs"}
"""Folders that say nothing about an image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundImage:
    """An image as an annotation file describes it.

    Attributes:
        file: the annotation file, one of the source's.
        spellings: the image's path or URL as it is written, then other ways to write it.
        regions: in drawing order.
        size: height and width that the file states.
        split: the source's; "" if it has none.
        embedded: suffix and reader of the encoded image within the file, if the source has no file for it.
        label: the label if it is not one of regions.
        label_files: further files of the label.
        overlap: the message about regions that overlap.
    """

    file: str
    spellings: Sequence[str]
    regions: Sequence[FoundRegion] = ()
    size: Size | None = None
    split: Split | Literal[""] = ""
    embedded: tuple[str, Callable[[], bytes]] | None = None
    label: Label | None = None
    label_files: Sequence[str] = ()
    overlap: str = OVERLAP


def imported(
    source: SourceFolder,
    found: Sequence[FoundImage],
    classes: Sequence[SourceClass],
    losses: Losses,
    photographs: Iterable[str] | None = None,
) -> Imported:
    """Match images with files. Images without annotations have no label.

    Args:
        source: the files.
        found: images of all annotation files.
        classes: in the order that the source defines; others that regions name are added, sorted.
        losses: gets what does not fit.
        photographs: the files that are images; by default all of the source that have the suffix of one.

    Raises:
        SourceError: no annotation file could be read.
    """
    listed = sorted(photographs) if photographs is not None else source.images()
    listing = _Photographs(source, listed)
    all_classes = _with_others(classes, found)
    ids = {each.name: index for index, each in reversed(list(enumerate(all_classes)))}
    by_file: dict[str, list[FoundImage]] = defaultdict(list)
    images = []
    for each in found:
        if file := listing.match(each, losses):
            by_file[file].append(each)
        elif each.embedded:
            images.append(_embedded(source, each, *each.embedded, ids))
    names = names_below(listed)
    for file in listed:
        descriptions = _of_one_image(file, by_file.get(file, []), losses)
        images.append(_annotated(source, file, names[file], descriptions, ids))
    return Imported(classes=all_classes, images=images, has_rest=True)


def check_readable(source: SourceFolder, found: Sequence[FoundImage], losses: Losses) -> None:
    """Raise SourceError if no annotation file could be read."""
    unreadable = [loss for loss in losses.groups() if loss.kind == UNREADABLE_KIND]
    if not found and unreadable:
        examples = "; ".join(example for loss in unreadable for example in loss.examples)
        raise SourceError(f"{source.title}: no annotations can be read: {examples}; export them again")


UNREADABLE_KIND = "unreadable annotations"
UNREADABLE = "an annotation file cannot be read; what it labels is imported without labels"


def report_unreadable(file: str, problem: object, losses: Losses) -> None:
    """Add a file that cannot be read to the losses."""
    losses.add(UNREADABLE_KIND, UNREADABLE, f"{file} {problem}", remedy="export it again")


def read_files(
    source: SourceFolder, files: Iterable[str], read: Callable[[str], FoundImage], losses: Losses
) -> list[FoundImage]:
    """Read annotation files of one image each; those that cannot be read are losses. Raises SourceError if none can."""
    found = []
    for file in files:
        try:
            found.append(read(file))
        except ContentError as problem:
            report_unreadable(file, problem, losses)
    check_readable(source, found, losses)
    return found


def split_of(*paths: str) -> Split | Literal[""]:
    """The split that a folder, or the last word of a file's name, means: train/x.json, instances_val2017.json."""
    for path in paths:
        *folders, name = PurePosixPath(path.replace("\\", "/")).parts or ("",)
        last = PurePosixPath(name).stem.replace("-", "_").rpartition("_")[2]
        words = map(_word, (last, *reversed(folders)))
        if known := [SPLITS[word] for word in words if word in SPLITS]:
            return known[0]
    return ""


def _word(part: str) -> str:
    """A part of a path as a word for a split: without the year."""
    return part.casefold().rstrip("0123456789")


def names_below(files: Sequence[str]) -> dict[str, str]:
    """Name of each image in the data set: its path below the folder of all, without folders that say nothing."""
    paths = [PurePosixPath(file) for file in files]
    common = 0
    for level in zip(*(path.parts[:-1] for path in paths), strict=False):
        if len(set(level)) > 1:
            break
        common += 1
    dropped = IMAGE_FOLDERS | SPLITS.keys()
    return {
        str(path): "/".join([*(part for part in path.parts[common:-1] if _word(part) not in dropped), path.stem])
        for path in paths
    }


class _Photographs:
    """The images of a source, found by what an annotation file calls them."""

    def __init__(self, source: SourceFolder, listed: Sequence[str]) -> None:
        self._source, self._listed = source, set(listed)
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        for file in listed:
            self._by_stem[PurePosixPath(file).stem.casefold()].append(file)

    def match(self, found: FoundImage, losses: Losses) -> str | None:
        """The file, or None: the reason is added to the losses, unless the image is embedded."""
        for spelling in found.spellings:
            file = self._source.match(spelling, found.file)
            if file in self._listed:
                return file
        for spelling in found.spellings:
            stem = PurePosixPath(spelling.replace("\\", "/")).stem.casefold()
            if len(same := self._by_stem.get(stem, [])) == 1:
                if PurePosixPath(spelling).suffix.casefold() != PurePosixPath(same[0]).suffix.casefold():
                    losses.add("other suffix", BY_STEM, f"{found.file}: {spelling} is {same[0]}")
                return same[0]
        if not found.embedded:
            example = f"{found.file}: {found.spellings[0]}"
            bases = [spelling.replace("\\", "/").rpartition("/")[2] for spelling in found.spellings]
            several = sum(len(self._listed.intersection(self._source.named(base))) for base in bases if base) > 1
            remedy = "add its folder to the names, or rename the images" if several else "add the image"
            losses.add("annotation without image", SEVERAL if several else NO_IMAGE, example, remedy=remedy)
        return None


def _with_others(classes: Sequence[SourceClass], found: Iterable[FoundImage]) -> list[SourceClass]:
    known = {each.name for each in classes}
    others = {region.class_name for image in found for region in image.regions} - known
    return [*classes, *(SourceClass(name) for name in sorted(others))]


def _of_one_image(file: str, found: Sequence[FoundImage], losses: Losses) -> Sequence[FoundImage]:
    """The descriptions that belong to a file: those with other folders may mean images that are not there."""
    paths = {each.spellings[0].replace("\\", "/") for each in found}
    if len(paths) > 1:
        losses.add("shared image", SHARED, f"{file}: {' and '.join(sorted(paths)[:3])}", remedy="add the images")
        return ()
    if len(found) > 1:
        losses.add("annotated twice", TWICE, f"{file}: {', '.join(sorted({each.file for each in found}))}")
    return found


def _annotated(
    source: SourceFolder, file: str, name: str, found: Sequence[FoundImage], ids: Mapping[str, int]
) -> Annotated:
    regions = [region for each in found for region in each.regions]
    label = next((each.label for each in found if each.label), None)
    if regions:
        sizes = [each.size for each in found if each.size]
        label = RegionsLabel(file, regions, ids, sizes[0] if sizes else None, found[0].overlap)
    stated = [each.split for each in found if each.split]
    split = stated[0] if stated else split_of(f"{PurePosixPath(file).parent}/")
    used = dict.fromkeys(each for one in found for each in (one.file, *one.label_files))
    return Annotated(
        image=source.path(file),
        path=file,
        name=name,
        label=label,
        split=split,
        label_files=tuple(source.path(each) for each in used),
    )


def _embedded(
    source: SourceFolder, found: FoundImage, suffix: str, read: Callable[[], bytes], ids: Mapping[str, int]
) -> Annotated:
    stem = PurePosixPath(found.spellings[0].replace("\\", "/")).stem or "image"
    return Annotated(
        image=read,
        path=f"{stem}{suffix}",
        name=stem,
        label=RegionsLabel(found.file, found.regions, ids, found.size) if found.regions else None,
        label_files=(source.path(found.file),),
    )
