"""What the import knows about a format: how to recognise it, and how to read it."""

from collections.abc import Callable
from dataclasses import dataclass

from trainer.data.imports.import_options import ImportOptions
from trainer.data.imports.source.annotated import Imported
from trainer.data.imports.source.loss_report import Losses
from trainer.data.imports.source.source_folder import SourceFolder


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownFormat:
    """A format that can be imported.

    Attributes:
        name: value of --format.
        title: the tools that write it, for people.
        looked_for: what `find` looks for, for the error about an unknown source.
        find: the evidence that a source has the format, such as "12 labelme files"; None if it has not.
        read: reads a source, which may lack the evidence if the user named the format; raises SourceError.
        generic: whether the evidence fits other formats too: it counts only if no other format is found.
    """

    name: str
    title: str
    looked_for: str
    find: Callable[[SourceFolder], str | None]
    read: Callable[[SourceFolder, ImportOptions, Losses], Imported]
    generic: bool = False
