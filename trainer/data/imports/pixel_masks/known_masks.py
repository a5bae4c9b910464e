"""The formats with one or several mask files for each image."""

from trainer.data.imports.known_format import KnownFormat

MASK_FORMATS: tuple[KnownFormat, ...] = ()
