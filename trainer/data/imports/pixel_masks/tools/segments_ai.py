"""Segments.ai: a release's JSON, images, and PNGs of segment ids.

A label is RGBA as the platform stores it, with id = red + 256 green + 65536 blue, or one channel of ids as the SDK
keeps it (NAME_label_LABELSET.png). Id 0 has no segment. The JSON gives the category of each id.
"""

# H W pixels

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from trainer.counted import counted
from trainer.data.decode import ImageError, decode_colors, decode_values
from trainer.data.imports.import_options import ImportOptions
from trainer.data.imports.known_format import KnownFormat
from trainer.data.imports.pixel_masks.mask_label import MaskFile
from trainer.data.imports.source.annotated import REST, VOID, Annotated, Color, Ids, Imported, Label, Size, SourceClass
from trainer.data.imports.source.json_file import read_json
from trainer.data.imports.source.loss_report import Losses
from trainer.data.imports.source.source_error import SourceError
from trainer.data.imports.source.source_folder import SourceFolder

UNKNOWN_SEGMENT = "segments that the release does not list are ignored"
NO_FILE = "a label's PNG is not in the source; its image is imported without it"
NO_IMAGE = "a sample's image is not in the source"
MAX_JSON_FILES = 20


@dataclass(frozen=True, slots=True)
class SegmentMask:
    """A label of segment ids, and the class of each."""

    mask: MaskFile
    class_of: Mapping[int, int]

    def draw(self, size: Size, losses: Losses) -> Ids:
        """See Label."""
        name = Path(self.mask.name)
        segment_HW = self.mask.upright(_segment_ids(self.mask.source(), name), size, losses)
        if segment_HW.shape != size:
            found, wanted = (f"{shape[1]}x{shape[0]}" for shape in (segment_HW.shape, size))
            raise ImageError(f"{name}: the mask has {found} pixels, its image {wanted} (width x height)")
        ids, place_HW = np.unique(segment_HW, return_inverse=True)
        if unknown := [index for index in ids.tolist() if index not in self.class_of]:
            losses.add("foreign id", UNKNOWN_SEGMENT, f"{name}: {', '.join(map(str, unknown[:8]))}")
        table = np.array([self.class_of.get(index, VOID) for index in ids.tolist()], dtype=np.uint16)
        found_HW: Ids = table[place_HW.reshape(size)]
        return found_HW


def _segment_ids(source: Any, name: Path) -> Any:
    try:
        return decode_values(source, name).astype(np.int64)
    except ImageError:
        color_HWC = decode_colors(source, name).astype(np.int64)
        return color_HWC[..., 0] | color_HWC[..., 1] << 8 | color_HWC[..., 2] << 16


def _release(source: SourceFolder) -> tuple[str, Mapping[str, Any]] | None:
    """The release's file and content."""
    for file in source.below(".", (".json",))[:MAX_JSON_FILES]:
        try:
            table = read_json(source, file)
        except SourceError:
            continue
        dataset = table.get("dataset") if isinstance(table, dict) else None
        if isinstance(dataset, dict) and isinstance(dataset.get("samples"), list):
            return file, dataset
    return None


def find(source: SourceFolder) -> str | None:
    """See KnownFormat."""
    found = _release(source)
    return f"{found[0]} lists {counted(len(found[1]['samples']), 'sample', 'samples')}" if found else None


def read(source: SourceFolder, _options: ImportOptions, losses: Losses) -> Imported:
    """See KnownFormat."""
    found = _release(source)
    if not found:
        raise SourceError(f"{source.title}: has no JSON of a release; download it on the page Releases")
    file, dataset = found
    source.used[file] = "release"
    try:
        classes, position = _categories(dataset)
        images = [image for each in dataset["samples"] if (image := _sample(source, file, each, position, losses))]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SourceError(f"{file}: lacks or misstates {error}; download the release again") from error
    return Imported(classes=classes, images=images, has_rest=True)


def _categories(dataset: Mapping[str, Any]) -> tuple[list[SourceClass], dict[int, int]]:
    categories = sorted(dataset["task_attributes"]["categories"], key=lambda each: int(each["id"]))
    classes = [SourceClass(each["name"], _color(each.get("color"))) for each in categories]
    return classes, {int(each["id"]): index for index, each in enumerate(categories)}


def _color(value: Sequence[int] | None) -> Color | None:
    return (int(value[0]), int(value[1]), int(value[2])) if value else None


def _sample(
    source: SourceFolder, release: str, sample: Mapping[str, Any], position: Mapping[int, int], losses: Losses
) -> Annotated | None:
    name = str(sample["name"])
    url = str(sample["attributes"]["image"]["url"])
    stem, suffix = PurePosixPath(name).with_suffix("").as_posix(), PurePosixPath(url.partition("?")[0]).suffix
    image = source.match(f"{stem}{suffix}", release) or source.match(url, release) or source.match(name, release)
    if image is None:
        losses.add("annotation without image", NO_IMAGE, name, remedy="download the images too")
        return None
    labelset, label_table = _first_label(sample)
    label: Label | None = None
    files: tuple[Path, ...] = ()
    if label_table:
        attributes = label_table["attributes"]
        named = (str(attributes["segmentation_bitmap"]["url"]), f"{stem}_label_{labelset}.png")
        mask = next((found for each in named if (found := source.match(each, release))), None)
        if mask:
            class_of = {int(each["id"]): position[int(each["category_id"])] for each in attributes["annotations"]}
            files = (source.path(mask),)
            label = SegmentMask(MaskFile(files[0], mask, source.path(image)), {0: REST} | class_of)
        else:
            losses.add("missing mask", NO_FILE, name, remedy="download the labels too")
    return Annotated(image=source.path(image), path=image, name=stem, label=label, label_files=files)


def _first_label(sample: Mapping[str, Any]) -> tuple[str, Mapping[str, Any] | None]:
    """The label set ground-truth, else the first with a label."""
    labels = {name: label for name, label in (sample.get("labels") or {}).items() if label}
    name = "ground-truth" if "ground-truth" in labels else next(iter(labels), "")
    return name, labels.get(name)


SEGMENTS_FORMAT = KnownFormat(
    name="segments-ai",
    title="release of Segments.ai",
    looked_for="a JSON file of a release, with its images and labels",
    find=find,
    read=read,
)
