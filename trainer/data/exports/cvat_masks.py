"""CVAT's "Segmentation mask 1.1": the folders of Pascal VOC, with masks in the colours of labelmap.txt.

    JPEGImages/NAME.jpg
    SegmentationClass/NAME.png
    ImageSets/Segmentation/train.txt, val.txt, ...
    labelmap.txt
    labels.json             for the field "Raw" of a new task's or project's labels

CVAT takes black for background. So a class called background gets that colour, and no other class. Ignored pixels get
the colour of the border of Pascal VOC's objects, which is listed as the label `ignored`.
"""

# H W pixels, K classes

import json

import numpy as np

from trainer.data.exports.coco_labels import FOLDERS
from trainer.data.exports.exported_dataset import ExportedDataset, ExportedImage, ExportError
from trainer.data.exports.label_regions import background_id
from trainer.data.exports.mask_bytes import color_png
from trainer.data.exports.output_sink import Sink
from trainer.data.imports.output.class_plan import BACKGROUND, class_colors
from trainer.data.mask_encoding import Color
from trainer.data.readers.voc_class_files import VOID
from trainer.taxonomy import Taxonomy

IGNORED = f"a mask has ignored pixels; they have the label {VOID[0]!r} and its colour"
IGNORED_REMEDY = "add this label to CVAT's labels, or CVAT rejects the masks; the import reads it as ignored pixels"
RECOLOURED = "a class has another colour here: that of background or of another class would be ambiguous"
NO_GROUPS = "the group of an image has no place in this format"


def write_cvat(dataset: ExportedDataset, sink: Sink) -> None:
    """Write the data set. Raises ExportError for names that labelmap.txt cannot hold."""
    taxonomy = dataset.taxonomy
    _check_names(taxonomy.names)
    colors = mask_colors(taxonomy)

    def convert(image: ExportedImage) -> tuple[bytes, bool] | None:
        mask_HW = dataset.mask(image)
        if mask_HW is None:
            return None
        void_HW = mask_HW == taxonomy.ignore_index
        ids_HW = np.where(void_HW, len(taxonomy), mask_HW)
        return color_png(ids_HW, [*colors, VOID[1]]), bool(void_HW.any())

    ignored = False
    for image, result in dataset.each(convert):
        if result is not None:
            mask, has_void = result
            sink.add(f"SegmentationClass/{image.name}.png", mask)
            if has_void:
                ignored = True
                dataset.losses.add("ignored pixels", IGNORED, image.name, remedy=IGNORED_REMEDY)
        if image.group:
            dataset.losses.add("group", NO_GROUPS, f"{image.name}: {image.group}")
        if dataset.with_images:
            sink.add(f"JPEGImages/{image.file}", dataset.content(image))
    _write_lists(dataset, sink)
    _write_labels(dataset, colors, sink, ignored=ignored)


def mask_colors(taxonomy: Taxonomy) -> list[Color]:
    """Colours of the masks, [K]: black for background only, none of another class or of ignored pixels."""
    background = background_id(taxonomy)
    others = [name for index, name in enumerate(taxonomy.names) if index != background]
    given = dict(zip(taxonomy.names, taxonomy.colors, strict=True))
    names = [BACKGROUND, VOID[0], *others]
    found = class_colors(names, {**{name: given[name] for name in others}, BACKGROUND: (0, 0, 0), VOID[0]: VOID[1]})
    color_of = dict(zip(names, found, strict=True))
    return [(0, 0, 0) if index == background else color_of[name] for index, name in enumerate(taxonomy.names)]


def _check_names(names: tuple[str, ...]) -> None:
    for name in names:
        if name == VOID[0]:
            raise ExportError(f"a class is called {name!r}, the label of ignored pixels; rename it in classes.toml")
        if ":" in name or name.startswith("#") or len(name.splitlines()) > 1:
            raise ExportError(
                f"the class {name!r} has a colon, # or line break, which labelmap.txt cannot hold; rename it"
            )


def _write_lists(dataset: ExportedDataset, sink: Sink) -> None:
    for split, folder in FOLDERS.items():
        names = [image.name for image in dataset.images if image.split == split]
        if names:
            sink.add(f"ImageSets/Segmentation/{folder}.txt", "".join(f"{name}\n" for name in names).encode())


def _write_labels(dataset: ExportedDataset, colors: list[Color], sink: Sink, *, ignored: bool) -> None:
    taxonomy = dataset.taxonomy
    pairs = list(zip(taxonomy.names, colors, strict=True)) + ([VOID] if ignored else [])
    background = background_id(taxonomy)
    if background is not None:
        # CVAT's name, and its place.
        del pairs[background]
        pairs.insert(0, (BACKGROUND, (0, 0, 0)))
    for name, before, color in zip(taxonomy.names, taxonomy.colors, colors, strict=True):
        if before != color:
            dataset.losses.add("colour", RECOLOURED, f"{name}: {list(before)} is {list(color)}")
    lines = ["# label:color_rgb:parts:actions", *(f"{name}:{','.join(map(str, color))}::" for name, color in pairs)]
    sink.add("labelmap.txt", "".join(f"{line}\n" for line in lines).encode())
    labels = [{"name": name, "color": "#{:02x}{:02x}{:02x}".format(*color), "attributes": []} for name, color in pairs]
    sink.add("labels.json", json.dumps(labels[background is not None :], ensure_ascii=False, indent=1).encode())
