"""The formats with one or several mask files for each image."""

from trainer.data.imports.known_format import KnownFormat
from trainer.data.imports.pixel_masks.mask_folders import MASK_FOLDERS_FORMAT
from trainer.data.imports.pixel_masks.tools.hugging_face import HUGGING_FACE_FORMAT
from trainer.data.imports.pixel_masks.tools.known_layouts import LAYOUT_FORMATS
from trainer.data.imports.pixel_masks.tools.roboflow_masks import ROBOFLOW_FORMAT
from trainer.data.imports.pixel_masks.tools.segments_ai import SEGMENTS_FORMAT

MASK_FORMATS: tuple[KnownFormat, ...] = (
    *LAYOUT_FORMATS,
    ROBOFLOW_FORMAT,
    SEGMENTS_FORMAT,
    HUGGING_FACE_FORMAT,
    MASK_FOLDERS_FORMAT,
)
