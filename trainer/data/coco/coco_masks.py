"""Convert annotations in COCO's format to masks, ROOT/masks/NAME.png. Own categories are classes, see coco_classes.py.

| source      | files                                                           | 255 (ignored) where             |
|-------------|-----------------------------------------------------------------|---------------------------------|
| panoptic    | annotations/panoptic_{train,val}2017.json, PNGs in its folder   | there is no segment (void)      |
| instances   | annotations/instances_{train,val}2017.json                      | nowhere: the rest is background |
| stuffthings | stuffthingmaps/{train,val}2017/*.png (COCO-Stuff's pixel maps), | COCO-Stuff has no label         |
|             | or annotations/{stuff,instances}_{train,val}2017.json           |                                 |

COCO itself has 81 classes: background and the 80 things. Smaller regions are drawn over larger ones; crowds count as
their class.
"""

# H W pixels, C channels

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from trainer.atomic_write import atomic_write
from trainer.counted import counted
from trainer.data.coco.coco_annotations import AnnotatedImage, AnnotationFile, Table, read_panoptic, read_regions
from trainer.data.coco.coco_classes import MaskValues, coco_values, is_coco, mask_values
from trainer.data.coco.coco_regions import Shape, region
from trainer.data.dataset import DatasetError
from trainer.data.decode import ImageError, decode_colors, decode_values
from trainer.data.map_in_threads import map_in_threads
from trainer.data.mask_file import write_mask
from trainer.data.readers.file_layouts import PIXEL_MAPS, STUFF_IDS, pixel_map_encoding
from trainer.taxonomy import IGNORE

AnnotationSource = Literal["panoptic", "instances", "stuffthings"]
Mask = npt.NDArray[np.integer[Any]]
"""Stored values, [H, W]: uint8, or uint16 for more than 255 classes."""
MaskTask = tuple[str, Callable[[], Mask]]
"""Stem of a mask's file name, and a function that computes it."""

PARTS = ("train2017", "val2017")


class Plan(NamedTuple):
    """What a source gives: what masks store, the masks, and the number of images without annotations."""

    values: MaskValues
    tasks: list[MaskTask]
    bare: int = 0


class Prepared(NamedTuple):
    """Numbers of masks written, of masks that existed, and of images without annotations; names of the classes."""

    written: int
    kept: int
    bare: int
    classes: tuple[str, ...]


def prepare_coco(root: Path, source: AnnotationSource) -> Prepared:
    """Write ROOT/masks for all annotated images, and keep existing masks.

    Raises DatasetError or TaxonomyError if the annotations are missing or faulty, ImageError if a PNG cannot be used.
    """
    plan_of, files = SOURCES[source]
    values, tasks, bare = plan_of(root)
    if not tasks:
        raise DatasetError(
            f"{root}: contains no {source} annotations ({files}); unpack them there, and rename those of other tools, "
            "with their images in train2017 and val2017"
        )
    if twice := [stem for stem, count in Counter(stem for stem, _ in tasks).items() if count > 1]:
        masks = counted(len(twice), "mask", "masks")
        raise DatasetError(f"{root}: {masks} would belong to two images, such as {twice[0]}; rename the images")
    (root / "masks").mkdir(exist_ok=True)
    remaining = [task for task in tasks if not _target(root, task).exists()]
    map_in_threads(lambda task: _write(_target(root, task), task[1](), values), remaining, "masks")
    return Prepared(len(remaining), len(tasks) - len(remaining), bare, values.taxonomy.names)


def _instances(root: Path) -> Plan:
    files = _files(root, "instances", read_regions)
    values = mask_values(root, files, background=True) if files else coco_values(root)
    images = [image for file in files for image in file.images]
    return Plan(values, [(image.stem, partial(instances_mask, image, values)) for image in images], _bare(root, files))


def _panoptic(root: Path) -> Plan:
    files = _files(root, "panoptic", read_panoptic)
    values = mask_values(root, files, background=False) if files else coco_values(root)
    annotated = [(file, image, each) for file in files for image in file.images for each in image.annotations]
    return Plan(
        values,
        [
            (
                image.stem,
                partial(panoptic_mask, file.path.with_suffix("") / each["file_name"], each["segments_info"], values),
            )
            for file, image, each in annotated
        ],
        _bare(root, files),
    )


def _bare(root: Path, files: Sequence[AnnotationFile]) -> int:
    """Number of images without annotations. Raises DatasetError if all are."""
    images = [image for file in files for image in file.images]
    bare = sum(not image.annotations for image in images)
    if images and bare == len(images):
        raise DatasetError(f"{root}: no image has an annotation; export the annotations again")
    return bare


def _stuffthings(root: Path) -> Plan:
    values = coco_values(root)
    if maps := [
        png for part in PARTS for folder in PIXEL_MAPS for png in sorted((root / folder / part).glob("[!.]*.png"))
    ]:
        return Plan(values, [(png.stem, partial(pixel_map_mask, png)) for png in maps])
    files, stuff_files = _files(root, "instances", read_regions), _files(root, "stuff", read_regions)
    for file in files:
        if not is_coco(file.categories):
            raise DatasetError(f"{file.path}: its categories are not COCO's 80; use --from instances")
    stuff = {image.stem: image.annotations for file in stuff_files for image in file.images}
    images = [image for file in files for image in file.images if image.stem in stuff]
    return Plan(values, [(image.stem, partial(stuff_mask, image, stuff[image.stem], values)) for image in images])


SOURCES: dict[AnnotationSource, tuple[Callable[[Path], Plan], str]] = {
    "panoptic": (_panoptic, "annotations/panoptic_{train,val}2017.json"),
    "instances": (_instances, "annotations/instances_{train,val}2017.json"),
    "stuffthings": (
        _stuffthings,
        "stuffthingmaps/{train,val}2017/*.png, annotations/stuff_ and instances_{train,val}2017.json",
    ),
}
"""For each source its plan, and its files."""


def panoptic_mask(png: Path, segments: Sequence[Table], values: MaskValues) -> Mask:
    """Values of a panoptic PNG, [H, W]; its colours are segment ids: r + 256 g + 65536 b, 0 = void."""
    color_HWC = decode_colors(png, png).astype(np.int64)
    segment_HW = color_HWC[..., 0] + (color_HWC[..., 1] << 8) + (color_HWC[..., 2] << 16)
    value_of = {0: values.void} | {info["id"]: values.of_category[info["category_id"]] for info in segments}
    ids, place_HW = np.unique(segment_HW, return_inverse=True)
    if unknown := [int(index) for index in ids if int(index) not in value_of]:
        raise ImageError(f"{png}: segment {unknown[0]} is not in the JSON; use PNGs and JSON of the same download")
    stored: Mask = np.array([value_of[int(index)] for index in ids], dtype=_dtype(values))
    mask_HW: Mask = stored[place_HW.reshape(segment_HW.shape)]
    return mask_HW


def instances_mask(image: AnnotatedImage, values: MaskValues) -> Mask:
    """Values of a mask, [H, W]: regions on background."""
    mask_HW = np.full(image.shape, values.background, dtype=_dtype(values))
    _paint(mask_HW, image, values)
    return mask_HW


def stuff_mask(image: AnnotatedImage, stuff: Sequence[Table], values: MaskValues) -> Mask:
    """Values of a mask, [H, W]: things, background where there is stuff, and void elsewhere."""
    mask_HW = np.full(image.shape, values.void, dtype=_dtype(values))
    for annotation in stuff:
        if annotation["category_id"] in STUFF_IDS:
            mask_HW[region(annotation["segmentation"], image.shape)] = values.background
    _paint(mask_HW, image, values)
    return mask_HW


def pixel_map_mask(png: Path) -> Mask:
    """Class ids of a pixel map of COCO-Stuff, uint8 [H, W]."""
    return pixel_map_encoding(IGNORE).decode(png, png, decode_values(png, png).shape).astype(np.uint8)


def _paint(mask_HW: Mask, image: AnnotatedImage, values: MaskValues) -> None:
    for annotation in sorted(image.annotations, key=lambda each: -_area(each, image.shape)):
        inside_HW = region(annotation["segmentation"], image.shape)
        mask_HW[inside_HW] = values.of_category[annotation["category_id"]]


def _area(annotation: Table, shape: Shape) -> float:
    """Area in pixels; the file's, so that COCO's order is kept, or that of the region if the file has none."""
    area = annotation.get("area")
    if isinstance(area, int | float) and area > 0:
        return float(area)
    return float(region(annotation["segmentation"], shape).sum())


def _files(root: Path, kind: str, read: Callable[[Path], AnnotationFile | None]) -> list[AnnotationFile]:
    files = [read(root / f"annotations/{kind}_{part}.json") for part in PARTS]
    return [file for file in files if file]


def _dtype(values: MaskValues) -> type[np.uint8 | np.uint16]:
    return np.uint8 if max(values.void, *values.of_category.values()) <= IGNORE else np.uint16


def _target(root: Path, task: MaskTask) -> Path:
    return root / "masks" / f"{task[0]}.png"


def _write(path: Path, mask_HW: Mask, values: MaskValues) -> None:
    with atomic_write(path) as temporary:
        write_mask(temporary, mask_HW, values.taxonomy.colors)
