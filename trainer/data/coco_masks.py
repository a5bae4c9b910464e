"""Convert COCO's annotations to masks of 81 classes, ROOT/masks/NAME.png: background, the 80 things, 255 = unknown.

| source      | files                                                           | 255 (ignored) where             |
|-------------|-----------------------------------------------------------------|---------------------------------|
| panoptic    | annotations/panoptic_{train,val}2017.json, PNGs in its folder   | COCO has no segment (void)      |
| instances   | annotations/instances_{train,val}2017.json                      | nowhere: the rest is background |
| stuffthings | stuffthingmaps/{train,val}2017/*.png (COCO-Stuff's pixel maps), | COCO-Stuff has no label         |
|             | or annotations/{stuff,instances}_{train,val}2017.json           |                                 |

Smaller things are drawn over larger ones. Crowds count as their class.
"""

# H W pixels, C channels

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from pycocotools import mask as rle

from trainer.atomic_write import atomic_write
from trainer.data.classes_file import public_classes
from trainer.data.dataset import DatasetError
from trainer.data.decode import ImageError, decode_colors, decode_values
from trainer.data.file_layouts import CLASS_OF_THING, PIXEL_MAPS, STUFF_IDS, pixel_map_encoding
from trainer.data.scan import map_in_threads
from trainer.taxonomy import IGNORE, Taxonomy

AnnotationSource = Literal["panoptic", "instances", "stuffthings"]
Mask = npt.NDArray[np.uint8]
MaskTask = tuple[str, Callable[[], Mask]]
"""Stem of a mask's file name, and a function that computes it."""

PARTS = ("train2017", "val2017")


def prepare_coco(root: Path, source: AnnotationSource) -> tuple[int, int]:
    """Write ROOT/masks for all annotated images, keep existing masks, and return the number of both.

    Raises DatasetError if the annotations are missing or have another format, ImageError if a PNG cannot be used.
    """
    tasks_of, files = SOURCES[source]
    tasks = [task for part in PARTS for task in tasks_of(root, part)]
    if not tasks:
        raise DatasetError(f"{root}: contains no {source} annotations ({files}); unpack them there")
    (root / "masks").mkdir(exist_ok=True)
    remaining = [task for task in tasks if not _target(root, task).exists()]
    taxonomy, _ = public_classes("coco", root)
    map_in_threads(lambda task: _write(_target(root, task), task[1](), taxonomy), remaining, "masks")
    return len(remaining), len(tasks) - len(remaining)


def _panoptic(root: Path, part: str) -> Iterator[MaskTask]:
    path = root / "annotations" / f"panoptic_{part}.json"
    for annotation in _read_json(path).get("annotations", ()):
        png = path.with_suffix("") / annotation["file_name"]
        yield png.stem, partial(panoptic_mask, png, annotation["segments_info"])


def _instances(root: Path, part: str) -> Iterator[MaskTask]:
    table = _read_json(root / "annotations" / f"instances_{part}.json")
    things = _by_image(table)
    for image in table.get("images", ()):
        yield Path(image["file_name"]).stem, partial(instances_mask, image, things[image["id"]])


def _stuffthings(root: Path, part: str) -> Iterator[MaskTask]:
    maps = [png for folder in PIXEL_MAPS for png in sorted((root / folder / part).glob("[!.]*.png"))]
    for png in maps:
        yield png.stem, partial(pixel_map_mask, png)
    if maps:
        return
    stuff_table = _read_json(root / "annotations" / f"stuff_{part}.json")
    things, stuff = _by_image(_read_json(root / "annotations" / f"instances_{part}.json")), _by_image(stuff_table)
    for image in stuff_table.get("images", ()) if things else ():
        yield Path(image["file_name"]).stem, partial(stuff_mask, image, things[image["id"]], stuff[image["id"]])


SOURCES: dict[AnnotationSource, tuple[Callable[[Path, str], Iterator[MaskTask]], str]] = {
    "panoptic": (_panoptic, "annotations/panoptic_{train,val}2017.json"),
    "instances": (_instances, "annotations/instances_{train,val}2017.json"),
    "stuffthings": (
        _stuffthings,
        "stuffthingmaps/{train,val}2017/*.png, annotations/stuff_ and instances_{train,val}2017.json",
    ),
}


def panoptic_mask(png: Path, segments: list[dict[str, Any]]) -> Mask:
    """Class ids of a panoptic PNG, uint8 [H, W]; its colours are segment ids: r + 256 g + 65536 b, 0 = void."""
    color_HWC = decode_colors(png, png).astype(np.int64)
    segment_HW = color_HWC[..., 0] + (color_HWC[..., 1] << 8) + (color_HWC[..., 2] << 16)
    class_of = {0: IGNORE} | {info["id"]: CLASS_OF_THING.get(info["category_id"], 0) for info in segments}
    ids, place_HW = np.unique(segment_HW, return_inverse=True)
    if unknown := [int(index) for index in ids if int(index) not in class_of]:
        raise ImageError(f"{png}: segment {unknown[0]} is not in the JSON; use PNGs and JSON of the same download")
    return np.array([class_of[int(index)] for index in ids], dtype=np.uint8)[place_HW.reshape(segment_HW.shape)]


def instances_mask(image: dict[str, Any], things: list[dict[str, Any]]) -> Mask:
    """Class ids, uint8 [H, W]: things on background."""
    mask_HW = np.zeros((image["height"], image["width"]), dtype=np.uint8)
    _paint(mask_HW, things, image["file_name"])
    return mask_HW


def stuff_mask(image: dict[str, Any], things: list[dict[str, Any]], stuff: list[dict[str, Any]]) -> Mask:
    """Class ids, uint8 [H, W]: things, background where there is stuff, and 255 elsewhere."""
    mask_HW = np.full((image["height"], image["width"]), IGNORE, dtype=np.uint8)
    for annotation in stuff:
        if annotation["category_id"] in STUFF_IDS:
            mask_HW[_area(annotation, mask_HW.shape)] = 0
    _paint(mask_HW, things, image["file_name"])
    return mask_HW


def pixel_map_mask(png: Path) -> Mask:
    """Class ids of a pixel map of COCO-Stuff, uint8 [H, W]."""
    return pixel_map_encoding(IGNORE).decode(png, png, decode_values(png, png).shape).astype(np.uint8)


def _paint(mask_HW: Mask, things: list[dict[str, Any]], name: str) -> None:
    for thing in sorted(things, key=lambda thing: -float(thing["area"])):
        if thing["category_id"] not in CLASS_OF_THING:
            raise DatasetError(
                f"{name}: category {thing['category_id']} is not one of COCO's 80; use the annotations of 2017"
            )
        mask_HW[_area(thing, mask_HW.shape)] = CLASS_OF_THING[thing["category_id"]]


def _area(annotation: dict[str, Any], shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Pixels of an annotation, bool [H, W], from polygons or run lengths (list or compressed)."""
    segmentation = annotation["segmentation"]
    if isinstance(segmentation, list):
        segmentation = rle.merge(rle.frPyObjects(segmentation, shape[0], shape[1]))
    elif isinstance(segmentation["counts"], list):
        segmentation = rle.frPyObjects(segmentation, shape[0], shape[1])
    return np.asarray(rle.decode(segmentation), dtype=np.bool_)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        table = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: cannot be read ({error}); unpack it again") from error
    if not isinstance(table, dict) or "annotations" not in table:
        raise DatasetError(f"{path}: has no annotations; use the original file of COCO")
    return table


def _by_image(table: dict[str, Any]) -> defaultdict[int, list[dict[str, Any]]]:
    groups: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
    for annotation in table.get("annotations", ()):
        groups[annotation["image_id"]].append(annotation)
    return groups


def _target(root: Path, task: MaskTask) -> Path:
    return root / "masks" / f"{task[0]}.png"


def _write(path: Path, mask_HW: Mask, taxonomy: Taxonomy) -> None:
    image = Image.fromarray(mask_HW)
    colors = [part for color in taxonomy.colors for part in color]
    image.putpalette(colors + [255] * (3 * 256 - len(colors)))
    with atomic_write(path) as temporary:
        image.save(temporary, "PNG")
