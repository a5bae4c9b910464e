"""Labels of images that have one mask file each: what the masks store decides what their values mean."""

from collections.abc import Mapping, Sequence

from trainer.data.imports.import_options import ImportOptions
from trainer.data.imports.pixel_masks.class_lists import ClassList, find_class_list, listed_names, read_class_list
from trainer.data.imports.pixel_masks.mask_content import MaskContent, read_content
from trainer.data.imports.pixel_masks.mask_label import BinaryMasks, MaskFile, PixelMask
from trainer.data.imports.pixel_masks.mask_values import MaskMeaning, decide_meaning
from trainer.data.imports.source.annotated import Label, SourceClass
from trainer.data.imports.source.loss_report import Losses
from trainer.data.imports.source.source_error import SourceError
from trainer.data.imports.source.source_folder import SourceFolder
from trainer.data.map_in_threads import each_in_threads

UNREADABLE = "a mask cannot be read; its image is imported without it"


def read_labels(
    masks: Mapping[str, MaskFile], source: SourceFolder, options: ImportOptions, losses: Losses
) -> tuple[Sequence[SourceClass], dict[str, Label]]:
    """The classes, and the label of each image whose mask is readable, by the keys of `masks`.

    Raises SourceError if no mask is readable, or if the masks store what cannot be classes.
    """
    files = list(masks.values())
    contents = list(each_in_threads(_content, files, "masks", bar=options.progress))
    readable = [content for content in contents if not content.problem]
    problems = [content.problem for content in contents if content.problem]
    for problem in problems:
        losses.add("unusable label", UNREADABLE, problem)
    if not readable:
        raise SourceError(f"{source.title}: no mask can be read: {problems[0] if problems else 'there are none'}")
    meaning = decide_meaning(readable, _listed(source, options), options.ignore_values, losses)
    pairs = zip(masks.items(), contents, strict=True)
    return meaning.classes, {
        key: _label(mask, content, meaning) for (key, mask), content in pairs if not content.problem
    }


def _content(mask: MaskFile) -> MaskContent:
    return read_content(mask.source, mask.name)


def _listed(source: SourceFolder, options: ImportOptions) -> ClassList | None:
    """The list of classes that the user gives, or that the source has."""
    if options.class_names:
        return listed_names(options.class_names)
    if options.classes:
        return read_class_list(options.classes)
    file = find_class_list(source)
    if file is None:
        return None
    source.used[file] = "list of classes"
    return read_class_list(source.path(file))


def _label(mask: MaskFile, content: MaskContent, meaning: MaskMeaning) -> Label:
    if meaning.is_binary:
        return BinaryMasks([(mask, 1)], rest=0)
    return PixelMask(mask, meaning.colors if content.colors else meaning.numbers)
