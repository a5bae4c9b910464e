"""Label Studio's SDK checks the labelling interface, and decodes the brushes."""

import json

from label_studio_sdk.converter.brush import decode_rle
from label_studio_sdk.label_interface import LabelInterface

from tests.trainer.data.exports.sdk_readers.painting import Painting

if __name__ == "__main__":
    painting = Painting()
    interface = LabelInterface((painting.export / "label_config.xml").read_text(encoding="utf-8"))
    interface.validate()
    known = set(interface.get_control("tag").labels)
    for task in json.loads((painting.export / "tasks.json").read_text(encoding="utf-8")):
        for annotation in task["annotations"]:
            regions = []
            for result in annotation["result"]:
                assert known.issuperset(result["value"]["brushlabels"]), known
                size = (result["original_height"], result["original_width"])
                alpha = decode_rle(result["value"]["rle"]).reshape(*size, 4)[..., 3]
                regions.append((result["value"]["brushlabels"][0], alpha))
            painting.paint(task["data"]["name"], size, regions)
