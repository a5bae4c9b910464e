"""datumaro reads COCO's format, and the folders of Pascal VOC, as CVAT does when it imports "Segmentation mask 1.1"."""

from datumaro import AnnotationType, Dataset

from tests.trainer.data.exports.sdk_readers.painting import Painting

if __name__ == "__main__":
    painting = Painting()
    is_coco = (painting.export / "annotations").exists()
    dataset = Dataset.import_from(str(painting.export), "coco" if is_coco else "voc_segmentation")
    labels = [label.name for label in dataset.categories()[AnnotationType.label]]
    for item in dataset:
        masks = [each for each in item.annotations if each.type == AnnotationType.mask]
        size = item.media.data.shape[:2]
        painting.paint(item.id, size, [(labels[each.label], each.image) for each in masks])
