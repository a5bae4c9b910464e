"""The formats of an export, and how to load each in its tool."""

from collections.abc import Callable
from dataclasses import dataclass

from trainer.data.exports.brush_tasks import write_label_studio
from trainer.data.exports.coco_labels import write_coco
from trainer.data.exports.cvat_masks import write_cvat
from trainer.data.exports.exported_dataset import ExportedDataset
from trainer.data.exports.folder_form import write_folder
from trainer.data.exports.hugging_face_rows import write_hugging_face
from trainer.data.exports.output_sink import Sink


@dataclass(frozen=True, slots=True)
class ExportForm:
    """A format.

    Attributes:
        title: the tool, for people.
        how_to_load: a sentence or more; {out} is the unpacked export, {program} what runs the trainer.
    """

    title: str
    write: Callable[[ExportedDataset, Sink], None]
    how_to_load: str


FORMS: dict[str, ExportForm] = {
    "folder": ExportForm(
        "Maskloop's folder", write_folder, "Check it with `{program} check-data {out}`, then train with it."
    ),
    "coco": ExportForm(
        "COCO, run lengths",
        write_coco,
        "pycocotools: `COCO('{out}/annotations/instances_train.json')`, then `annToMask`. The images are in "
        "{out}/images/train. CVAT, FiftyOne and datumaro import the folder as COCO.",
    ),
    "cvat": ExportForm(
        "CVAT, Segmentation mask 1.1",
        write_cvat,
        "Create a task of the files in {out}/JPEGImages; in its labels, paste {out}/labels.json under Raw. Then choose "
        "Upload annotations, Segmentation mask 1.1, and the ZIP archive of the export.",
    ),
    "labelstudio": ExportForm(
        "Label Studio, brush",
        write_label_studio,
        "Start Label Studio with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and "
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={out} (an absolute path). Create a project, paste "
        "{out}/label_config.xml under Labeling Interface, Code. Add a source storage of local files with the path "
        "{out}/images, without synchronising it. Then import {out}/tasks.json.",
    ),
    "huggingface": ExportForm(
        "Hugging Face datasets",
        write_hugging_face,
        "`datasets.load_from_disk('{out}')` returns the splits; id2label.json has the names of the classes.",
    ),
}
