"""datumaro: COCO, CVAT, VOC and CVAT's "Segmentation mask 1.1", which CVAT's server writes with a copy of datumaro."""

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from datumaro.components.annotation import AnnotationType, LabelCategories, Mask, MaskCategories, Polygon
from datumaro.components.dataset import Dataset
from datumaro.components.dataset_base import DatasetItem
from datumaro.components.media import Image

from tests.trainer.data.imports.sdks.case import Case, new_source, scene_masks
from tests.trainer.data.imports.sdks.scene import ANNOTATED, CLASSES, COLORS, Ids, Picture, Region, inside, painted

TOOL = f"datumaro {version('datumaro')}"


def main(root: Path) -> None:
    """Write the cases below a folder."""
    masks = scene_masks(ANNOTATED)
    Case(TOOL, "COCO instances").write(export(root, "datumaro-coco", "coco_instances"), masks)
    panoptic = Case(TOOL, "COCO panoptic")
    panoptic.write(export(root, "datumaro-panoptic", "coco_panoptic"), masks)
    Case(TOOL, "CVAT").write(export(root, "datumaro-cvat", "cvat"), masks)
    Case(TOOL, "VOC segmentation").write(export(root, "datumaro-voc", "voc_segmentation", label_map="source"), masks)
    table = {"background": [[0, 0, 0], [], []]} | {
        name: [list(color), [], []] for name, color in zip(CLASSES, COLORS, strict=True)
    }
    source = export(root, "cvat-mask", "voc_segmentation", label_map=table, subset="default")
    Case(TOOL, 'CVAT "Segmentation mask 1.1"').write(source, masks)
    Case(TOOL, "COCO instances as polygons").write(
        export(root, "datumaro-polygons", "coco_instances", polygons=True), {p.stem: filled(p) for p in ANNOTATED}
    )


def export(root: Path, name: str, form: str, *, subset: str = "train", polygons: bool = False, **options: Any) -> Path:
    """Export the pictures with their regions."""
    photographs = new_source(root, f"{name}-photographs", ANNOTATED)
    items = [item(photographs, picture, subset, polygons=polygons) for picture in ANNOTATED]
    labels = ["background", *CLASSES]
    colors = dict(enumerate([(0, 0, 0), *COLORS]))
    categories = {
        AnnotationType.label: LabelCategories.from_iterable(labels),
        AnnotationType.mask: MaskCategories(colors),
    }
    source = new_source(root, name)
    Dataset.from_iterable(items, categories=categories).export(str(source), form, save_media=True, **options)
    for picture in ANNOTATED:
        (photographs / picture.file_name).unlink()
    photographs.rmdir()
    photographs.parent.rmdir()
    return source


def item(photographs: Path, picture: Picture, subset: str, *, polygons: bool) -> DatasetItem:
    """A picture with its regions; z_order says which covers which."""
    shapes = [shape(region, picture.shape, order, polygons=polygons) for order, region in enumerate(picture.regions)]
    media = Image.from_file(path=str(photographs / picture.file_name), size=picture.shape)
    return DatasetItem(id=picture.stem, subset=subset, media=media, annotations=shapes)


def shape(region: Region, size: tuple[int, int], order: int, *, polygons: bool) -> Any:
    """A mask, or a polygon, which has no hole."""
    known = {"label": region.id, "z_order": order, "group": order + 1, "id": order + 1}
    if polygons:
        return Polygon([part for corner in region.corners for part in corner], **known)
    return Mask(region.bits(size), **known)


def filled(picture: Picture) -> Ids:
    """Id mask of the regions without their holes."""
    shape = picture.shape
    return painted(shape, [(region.id, inside(region.corners, shape)) for region in picture.regions])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
