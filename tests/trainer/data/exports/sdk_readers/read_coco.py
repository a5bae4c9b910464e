"""pycocotools reads COCO's format."""

from pycocotools.coco import COCO

from tests.trainer.data.exports.sdk_readers.painting import Painting

if __name__ == "__main__":
    painting = Painting()
    for path in sorted(painting.export.glob("annotations/*.json")):
        content = COCO(str(path))
        for image in content.loadImgs(content.getImgIds()):
            annotations = content.loadAnns(content.getAnnIds(image["id"]))
            painting.paint(
                image["file_name"].rpartition(".")[0],
                (image["height"], image["width"]),
                [(content.cats[each["category_id"]]["name"], content.annToMask(each)) for each in annotations],
            )
