"""Import a source: unpack it, find its format, read it, and write a data set as a folder or a ZIP archive.

The folder gets its name when it is complete, so an interrupted import is not taken for a data set.
"""

import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from trainer.data.imports.import_options import ImportOptions
from trainer.data.imports.output.class_plan import plan_classes
from trainer.data.imports.output.write_dataset import WrittenDataset, class_table, write_account, write_dataset
from trainer.data.imports.source.loss_report import Losses
from trainer.data.imports.source.source_error import SourceError
from trainer.data.imports.source.source_folder import SourceFolder
from trainer.data.imports.source.unpack import unpack
from trainer.data.imports.source_formats import Found, find_format
from trainer.data.output_target import check_target, complete, is_archive, work_folder


class Listener(Protocol):
    """Is told about the progress of an import."""

    def found(self, source: SourceFolder, found: Found) -> None:
        """The source's format was found."""

    def progress(self, done: int, total: int) -> None:
        """`done` of `total` images were written."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was imported, and from which format."""

    found: Found
    written: WrittenDataset

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "format": self.found.format.name,
            "images": sum(bool(each.image) for each in self.written.images),
            "masks": sum(bool(each.mask) for each in self.written.images),
            "splits": {split: len(names) for split, names in self.written.splits.items()},
            "classes": class_table(self.written),
            "losses": [loss.as_dict() for loss in self.written.losses.groups()],
        }


def import_source(source: Path, target: Path, options: ImportOptions, listener: Listener) -> Outcome:
    """Import a folder or ZIP archive.

    Args:
        source: folder or ZIP archive.
        target: the data set's folder, which must be empty or not exist; or a new file whose name ends in .zip.
        options: the user's decisions.
        listener: is told about the progress.

    Raises:
        SourceError: the source cannot be imported.
        TargetError: the target exists, or cannot be written.
        TaxonomyError: a list of classes is invalid.
    """
    check_target(target)
    with work_folder(target) as work:
        unpacked, folder = work / "source", work / "dataset"
        folder.mkdir()
        outcome = _import(_opened(source, unpacked, options), folder, options, listener)
        shutil.rmtree(unpacked, ignore_errors=True)
        if is_archive(target):
            _pack(folder, packed := work / "dataset.zip")
            packed.replace(target)
        else:
            complete(folder, target)
    return outcome


def _import(source: SourceFolder, folder: Path, options: ImportOptions, listener: Listener) -> Outcome:
    found = find_format(source, options)
    listener.found(source, found)
    losses = Losses()
    imported = found.format.read(source, options, losses)
    if not imported.images:
        raise SourceError(f"{source.title}: contains no images ({found.format.title}); add the images to the labels")
    rest = options.rest if imported.has_rest or options.empty == "background" else None
    if options.empty == "background" and rest != "background":
        raise SourceError("--empty background: needs --rest background, or images would show a class that no mask has")
    plan = plan_classes(imported.classes, rest=rest, ignored=options.ignore_classes, losses=losses)
    written = write_dataset(folder, imported, plan, options, losses=losses, on_done=listener.progress)
    about = {"source": source.title, "format": found.format.name, "evidence": found.evidence}
    write_account(folder, source, written, about)
    return Outcome(found, written)


def _opened(source: Path, unpacked: Path, options: ImportOptions) -> SourceFolder:
    if not source.is_file():
        return SourceFolder(source)
    unpacked.mkdir()
    unpack(source, unpacked, max_bytes=options.max_unpacked_bytes)
    return SourceFolder(unpacked, source.name)


def _pack(folder: Path, target: Path) -> None:
    # Stored: images and masks are compressed already.
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder).as_posix())
