"""Roboflow's "Semantic Segmentation Masks": NAME_mask.png beside NAME.jpg, and _classes.csv, in each split's folder."""

from dataclasses import dataclass
from pathlib import PurePosixPath

from trainer.counted import counted
from trainer.data.imports.import_options import ImportOptions
from trainer.data.imports.known_format import KnownFormat
from trainer.data.imports.pixel_masks.class_lists import read_class_list
from trainer.data.imports.pixel_masks.folder_pairs import split_of
from trainer.data.imports.pixel_masks.mask_label import MaskFile, PixelMask
from trainer.data.imports.source.annotated import VOID, Annotated, Imported, Label, SourceClass
from trainer.data.imports.source.loss_report import Losses
from trainer.data.imports.source.source_folder import SourceFolder
from trainer.data.mask_encoding import MaskEncoding

CLASSES, ENDING = "_classes.csv", "_mask"
NO_IMAGE = "a mask has no image and is not imported"


@dataclass(frozen=True, slots=True)
class _Folder:
    """One folder with _classes.csv: its masks by the path of their image without suffix, and their encoding."""

    path: str
    masks: dict[str, str]
    encoding: MaskEncoding


def find(source: SourceFolder) -> str | None:
    """See KnownFormat."""
    if not (lists := source.named(CLASSES)):
        return None
    masks = [file for file in source.images() if PurePosixPath(file).stem.endswith(ENDING)]
    return f"{counted(len(masks), 'mask', 'masks')}, and {', '.join(lists)}" if masks else None


def read(source: SourceFolder, _options: ImportOptions, losses: Losses) -> Imported:
    """See KnownFormat. A class is known by its name: the values of two folders may differ."""
    names: dict[str, int] = {}
    folders = [_folder(source, file, names) for file in source.named(CLASSES)]
    images = [image for folder in folders for image in _images(source, folder)]
    used = {file for image in images for file in image.label_files}
    for folder in folders:
        for mask in folder.masks.values():
            if source.path(mask) not in used:
                losses.add("annotation without image", NO_IMAGE, mask)
    return Imported(classes=[SourceClass(name) for name in names], images=images, has_rest=False)


def _folder(source: SourceFolder, file: str, names: dict[str, int]) -> _Folder:
    source.used[file] = "list of classes"
    listed = read_class_list(source.path(file))
    pairs = zip(listed.values, listed.classes, strict=True)
    values = {value: names.setdefault(each.name, len(names)) for value, each in pairs}
    parent = PurePosixPath(file).parent.as_posix()
    masks = [each for each in source.images(parent) if PurePosixPath(each).stem.endswith(ENDING)]
    by_image = {PurePosixPath(mask).with_suffix("").as_posix().removesuffix(ENDING): mask for mask in masks}
    return _Folder(parent, by_image, MaskEncoding.from_values(values, (), VOID))


def _images(source: SourceFolder, folder: _Folder) -> list[Annotated]:
    masks, images = set(folder.masks.values()), []
    for file in source.images(folder.path):
        if file in masks:
            continue
        path = PurePosixPath(file)
        label: Label | None = None
        if mask := folder.masks.get(path.with_suffix("").as_posix()):
            label = PixelMask(MaskFile(source.path(mask), mask, source.path(file)), folder.encoding)
        files = (source.path(mask),) if mask else ()
        split = split_of(file) or ""
        image = source.path(file)
        images.append(Annotated(image=image, path=file, name=path.stem, label=label, split=split, label_files=files))
    return images


ROBOFLOW_FORMAT = KnownFormat(
    name="roboflow-masks",
    title="Roboflow's semantic segmentation masks",
    looked_for="_classes.csv, with NAME_mask.png beside NAME.jpg",
    find=find,
    read=read,
)
