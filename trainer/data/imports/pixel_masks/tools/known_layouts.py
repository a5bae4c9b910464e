"""Layouts that the trainer reads itself, written in the folder form: classes, masks and splits of its own readers."""

# H W pixels

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal

from trainer.counted import counted
from trainer.data.dataset import EVERYTHING, DatasetError, MissingImagesError, Sample, SegmentationDataset
from trainer.data.imports.import_options import ImportOptions
from trainer.data.imports.known_format import KnownFormat
from trainer.data.imports.pixel_masks.class_lists import with_void
from trainer.data.imports.pixel_masks.mask_label import MaskFile, PixelMask
from trainer.data.imports.source.annotated import SPLITS, Annotated, Imported, Label, SourceClass, Split
from trainer.data.imports.source.loss_report import Losses
from trainer.data.imports.source.source_error import SourceError
from trainer.data.imports.source.source_folder import SourceFolder
from trainer.data.readers.file_layouts import CITYSCAPES_NAME_END
from trainer.data.readers.files import FileDataset
from trainer.data.readers.layouts import open_dataset
from trainer.data.readers.voc_class_files import find_class_file

MISSING = "a list names an image that the source does not have"
CLASS_FILES = {"labelmap.txt", "class_names.txt", "classes.toml"}


@dataclass(frozen=True, slots=True)
class Layout:
    """A layout of the trainer: its name, the folder of the images, and a folder with masks."""

    name: str
    title: str
    images: str
    marks: Sequence[str]

    def find(self, source: SourceFolder) -> str | None:
        """See KnownFormat."""
        if not all(source.has_folder(mark) or mark in source.files for mark in self.marks):
            return None
        own = find_class_file(source.root) if self.name == "voc" else None
        if own is None and not self._has_public_names(source):
            return None
        found = counted(len(source.images(self.images)), "image", "images")
        return f"{found} in {self.images}, {own.name if own else ' and '.join(self.marks)}"

    def _has_public_names(self, source: SourceFolder) -> bool:
        try:
            open_dataset(source.root)
        except DatasetError:
            return False
        return True

    def read(self, source: SourceFolder, _options: ImportOptions, losses: Losses) -> Imported:
        """See KnownFormat."""
        dataset = open_dataset(source.root, self.name)
        if not isinstance(dataset, FileDataset):
            raise SourceError(f"{source.title}: is no data set of this layout; remove --format")
        for file in source.files:
            if PurePosixPath(file).name in CLASS_FILES:
                source.used[file] = "list of classes"
        splits = _splits(source, dataset, losses)
        listed = dataset.split(EVERYTHING)
        images = [_annotated(source, dataset, sample, splits.get(sample.image, ""), self.images) for sample in listed]
        pairs = zip(dataset.taxonomy.names, dataset.taxonomy.colors, strict=True)
        return Imported(classes=[SourceClass(*pair) for pair in pairs], images=images, has_rest=False)


def _annotated(
    source: SourceFolder, dataset: FileDataset, sample: Sample, split: Split | Literal[""], images: str
) -> Annotated:
    label: Label | None = None
    files: tuple[Path, ...] = ()
    if dataset.has_mask(sample) and sample.mask:
        mask = MaskFile(sample.mask, source.relative(sample.mask), sample.image)
        label, files = PixelMask(mask, with_void(dataset.encoding_of(sample.mask))), (sample.mask,)
    path = source.relative(sample.image)
    below = PurePosixPath(path.removeprefix(f"{images}/")).with_suffix("")
    name = below.as_posix() if not dataset.folder_splits() and not dataset.name_end else below.name
    name = name.removesuffix(CITYSCAPES_NAME_END)
    return Annotated(image=sample.image, path=path, name=name, label=label, split=split, label_files=files)


def _splits(source: SourceFolder, dataset: SegmentationDataset, losses: Losses) -> dict[Path, Split]:
    splits: dict[Path, Split] = {}
    for name in dataset.splits():
        # Names of several settings, such as 1_8/labeled, contradict each other.
        if split := SPLITS.get(name.casefold()):
            try:
                samples = dataset.split(name)
            except MissingImagesError as error:
                samples = error.samples
                for missing in error.missing:
                    losses.add("annotation without image", MISSING, f"{name}: {missing}")
            splits |= dict.fromkeys((sample.image for sample in samples), split)
    for file in source.below(".", (".txt",)):
        if PurePosixPath(file).parent.name in {"splits", "Segmentation"}:
            source.used[file] = "list of names"
    return splits


def _format(layout: Layout) -> KnownFormat:
    looked_for = " and ".join(layout.marks)
    if layout.name == "voc":
        looked_for += ", with labelmap.txt or class_names.txt, or the names of Pascal's images"
    find: Callable[[SourceFolder], str | None] = partial(Layout.find, layout)
    read: Callable[[SourceFolder, ImportOptions, Losses], Imported] = partial(Layout.read, layout)
    return KnownFormat(name=layout.name, title=layout.title, looked_for=looked_for, find=find, read=read)


LAYOUTS = (
    Layout("folder", "data set of Maskloop", "images", ("classes.toml", "images")),
    Layout("voc", "Pascal VOC folders (CVAT, datumaro, labelme)", "JPEGImages", ("JPEGImages", "SegmentationClass")),
    Layout("cityscapes", "Cityscapes", "leftImg8bit", ("leftImg8bit", "gtFine")),
    Layout("ade20k", "ADE20K", "images", ("images", "annotations/training")),
)
LAYOUT_FORMATS = tuple(_format(layout) for layout in LAYOUTS)
