"""Export the labels of a data set for another tool, to a folder, a ZIP archive, or a stream.

A folder or archive gets its name when it is complete.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from trainer.data.exports.export_forms import FORMS, ExportForm
from trainer.data.exports.exported_dataset import ExportedDataset, read_exported
from trainer.data.exports.output_sink import FolderSink, Sink, ZipSink
from trainer.data.imports.source.loss_report import Loss, Losses
from trainer.data.output_target import check_target, complete, is_archive, work_folder

Target = Path | IO[bytes]
NO_LABEL = "an image has no label; it is exported without one"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """Options of an export; each is a flag of the command."""

    form: str
    """Name of the format."""
    layout: str = "auto"
    """Layout of the data set, as in `data.format`."""
    with_images: bool = True
    """Whether to export the images too."""
    progress: bool = True
    """Whether a terminal shows a progress bar."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was exported: numbers of images and labels, and what the format cannot hold."""

    images: int
    labels: int
    losses: Sequence[Loss]

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {"images": self.images, "labels": self.labels, "losses": [loss.as_dict() for loss in self.losses]}


def export_dataset(root: Path, target: Target, options: ExportOptions, on_done: Callable[[int, int], None]) -> Exported:
    """Export a data set.

    Args:
        root: any data set that the trainer reads.
        target: a folder, which must be empty or not exist; a new file whose name ends in .zip; or a stream, which gets
            a ZIP archive.
        options: the user's decisions.
        on_done: gets the numbers of finished and of all images.

    Raises:
        DatasetError, TaxonomyError, ImageError: the data set cannot be read.
        ExportError: the format cannot hold it.
        TargetError: the target exists, or cannot be written.
    """
    if not isinstance(target, Path):
        return _to_archive(root, target, options, on_done)
    check_target(target)
    with work_folder(target) as work:
        if is_archive(target):
            with (packed := work / "export.zip").open("wb") as stream:
                exported = _to_archive(root, stream, options, on_done)
            packed.replace(target)
            return exported
        (folder := work / "export").mkdir()
        exported = _export(root, FolderSink(folder), options, on_done)
        complete(folder, target)
        return exported


def _to_archive(root: Path, stream: IO[bytes], options: ExportOptions, on_done: Callable[[int, int], None]) -> Exported:
    sink = ZipSink(stream)
    exported = _export(root, sink, options, on_done)
    sink.close()
    return exported


def _export(root: Path, sink: Sink, options: ExportOptions, on_done: Callable[[int, int], None]) -> Exported:
    losses = Losses()
    source, images = read_exported(root, options.layout, losses)
    dataset = ExportedDataset(
        source=source,
        images=images,
        losses=losses,
        on_done=on_done,
        bar=options.progress,
        with_images=options.with_images,
    )
    for image in images:
        if not image.labelled:
            losses.add("image without label", NO_LABEL, image.name)
    form = FORMS[options.form]
    form.write(dataset, sink)
    exported = Exported(len(images), sum(image.labelled for image in images), losses.groups())
    sink.add("README.md", _read_me(form, exported).encode())
    return exported


def _read_me(form: ExportForm, exported: Exported) -> str:
    notes = "".join(f"- {sentence(loss)}\n" for loss in exported.losses)
    return f"# {form.title}\n\n{form.how_to_load.format(out='FOLDER', program='python -m trainer')}\n" + (
        f"\n{notes}" if notes else ""
    )


def sentence(loss: Loss) -> str:
    """What was lost or decided, with its count, remedy and examples."""
    count = f" ({loss.count})" if loss.count > 1 else ""
    remedy = f"; {loss.remedy}" if loss.remedy else ""
    more = ", ..." if loss.examples and loss.count > len(loss.examples) else ""
    examples = f": {', '.join(loss.examples)}{more}" if loss.examples else ""
    return f"{loss.message}{count}{remedy}{examples}"
