"""The formats with annotations in JSON or XML files."""

from trainer.data.imports.known_format import KnownFormat

ANNOTATION_FORMATS: tuple[KnownFormat, ...] = ()
