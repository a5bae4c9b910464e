"""supervision reads COCO's format."""

from pathlib import Path

import supervision

from tests.trainer.data.exports.sdk_readers.painting import Painting

if __name__ == "__main__":
    painting = Painting()
    for path in sorted(painting.export.glob("annotations/*.json")):
        images = painting.export / "images" / path.stem.removeprefix("instances_")
        dataset = supervision.DetectionDataset.from_coco(str(images), str(path), force_masks=True)
        for file, image, found in dataset:
            name = Path(file).relative_to(images).with_suffix("").as_posix()
            masks = [] if found.mask is None else zip(found.class_id, found.mask, strict=True)
            painting.paint(name, image.shape[:2], [(dataset.classes[label], mask) for label, mask in masks])
