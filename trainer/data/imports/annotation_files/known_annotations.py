"""The formats with annotations in JSON or XML files."""

from trainer.data.imports.annotation_files.coco_json.coco_format import COCO
from trainer.data.imports.annotation_files.tools.cvat_xml import CVAT
from trainer.data.imports.annotation_files.tools.darwin_files import DARWIN
from trainer.data.imports.annotation_files.tools.label_studio_tasks import LABEL_STUDIO
from trainer.data.imports.annotation_files.tools.labelme_files import LABELME
from trainer.data.imports.annotation_files.tools.supervisely_project import SUPERVISELY
from trainer.data.imports.known_format import KnownFormat

ANNOTATION_FORMATS: tuple[KnownFormat, ...] = (LABELME, COCO, CVAT, LABEL_STUDIO, SUPERVISELY, DARWIN)
