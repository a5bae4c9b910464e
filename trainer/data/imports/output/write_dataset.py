"""Write the folder of a data set: images, masks, classes.toml, splits, overview.jpg and import.json."""

# K classes

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainer.data.classes_file import write_classes
from trainer.data.imports.import_options import ImportOptions
from trainer.data.imports.output.class_plan import ClassPlan
from trainer.data.imports.output.draw_splits import draw_val
from trainer.data.imports.output.output_names import output_names
from trainer.data.imports.output.overview import write_overview
from trainer.data.imports.output.write_images import ImageWriter, WrittenImage
from trainer.data.imports.source.annotated import Imported
from trainer.data.imports.source.loss_report import Losses
from trainer.data.imports.source.source_error import SourceError
from trainer.data.imports.source.source_folder import SourceFolder

VERSION = 1
"""Of the form of import.json."""
NEVER_USED = "a class is in no mask; it is kept, so that a later import of more labels has the same ids"
NO_LABEL_IN_VAL = "an image of the source's validation has no label; it is in no split, since it must not train"


@dataclass(frozen=True, slots=True)
class WrittenDataset:
    """What was written.

    Attributes:
        images: in the order of the source.
        splits: names by split.
        plan: the classes.
        losses: everything that was lost or decided.
    """

    images: tuple[WrittenImage, ...]
    splits: Mapping[str, Sequence[str]]
    plan: ClassPlan
    losses: Losses


def write_dataset(
    folder: Path,
    imported: Imported,
    plan: ClassPlan,
    options: ImportOptions,
    *,
    losses: Losses,
    on_done: Callable[[int, int], None],
) -> WrittenDataset:
    """Write everything but import.json into an empty folder. Raises SourceError if nothing can be imported."""
    for part in ("images", "masks", "splits"):
        (folder / part).mkdir()
    writer = ImageWriter(folder=folder, plan=plan, empty=options.empty, link=options.link)
    names = output_names(imported.images, losses)
    images = tuple(writer.write_all(imported.images, names, on_done, bar=options.progress))
    for each in images:
        losses.merge(each.losses)
    if not any(each.image for each in images):
        raise SourceError("none of the images can be read: " + _examples(losses))
    _report_unused(images, plan, losses)
    splits = choose_splits(images, options, losses)
    for split, listed in splits.items():
        if listed:
            (folder / f"splits/{split}.txt").write_text("".join(f"{name}\n" for name in listed), encoding="utf-8")
    taxonomy = plan.taxonomy
    classes_file = folder / "classes.toml"
    write_classes(classes_file, taxonomy.names, taxonomy.colors, taxonomy.ignore_index, "import")
    write_overview(folder, images, taxonomy)
    return WrittenDataset(images, splits, plan, losses)


def choose_splits(images: Sequence[WrittenImage], options: ImportOptions, losses: Losses) -> dict[str, list[str]]:
    """Names by split, sorted: the source's splits; without labelled or validation images there, drawn ones."""
    splits: dict[str, list[str]] = {"labelled": [], "unlabelled": [], "val": [], "test": []}
    for each in (each for each in images if each.image):
        split = each.source.split
        if split == "test":
            splits["test"].append(each.name)
        elif each.counts_K is not None:
            splits[split or "labelled"].append(each.name)
        elif split == "val":
            losses.add("validation without label", NO_LABEL_IN_VAL, each.source.path)
        else:
            splits["unlabelled"].append(each.name)
    if not splits["labelled"]:
        splits["labelled"], splits["val"] = splits["val"], []
    if not splits["val"]:
        _draw(splits, images, options, losses)
    return {split: sorted(names) for split, names in splits.items()}


def _draw(splits: dict[str, list[str]], images: Sequence[WrittenImage], options: ImportOptions, losses: Losses) -> None:
    shown = {each.name: each.counts_K > 0 for each in images if each.counts_K is not None}
    labelled = {name: shown[name] for name in splits["labelled"]}
    drawn = draw_val(labelled, splits["unlabelled"], options.val_share, options.seed)
    splits["val"] = [name for name in splits["labelled"] if name in drawn.val]
    splits["labelled"] = [name for name in splits["labelled"] if name not in drawn.val]
    splits["unlabelled"] = [name for name in splits["unlabelled"] if name not in drawn.left_out]
    for name in splits["val"]:
        message = f"the source has no images for validation; {drawn.rule}"
        losses.add("drawn validation", message, name, remedy="--val-share and --seed change it; or edit splits/")
    for name in sorted(drawn.left_out):
        message = "an unlabelled image is beside those for validation and in no split, so that it does not train"
        losses.add("near validation", message, name, remedy="add it to splits/unlabelled.txt if it shows another scene")


def write_account(folder: Path, source: SourceFolder, written: WrittenDataset, about: Mapping[str, Any]) -> None:
    """Write import.json: the classes with their pixels, the losses, and what became of every file of the source."""
    table = {
        "version": VERSION,
        **about,
        "classes": class_table(written),
        "splits": {split: len(names) for split, names in written.splits.items()},
        "losses": [loss.as_dict() for loss in written.losses.groups()],
        "files": _files(source, written),
    }
    text = json.dumps(table, ensure_ascii=False, indent=1)
    (folder / "import.json").write_text(text + "\n", encoding="utf-8")


def class_table(written: WrittenDataset) -> list[dict[str, Any]]:
    """Id, name, colour, number of masks and of pixels of each class."""
    taxonomy = written.plan.taxonomy
    counts = [each.counts_K for each in written.images if each.counts_K is not None]
    counts_NK = np.array(counts, dtype=np.int64).reshape(-1, len(taxonomy))
    masks_K, pixels_K = (counts_NK > 0).sum(axis=0).tolist(), counts_NK.sum(axis=0).tolist()
    return [
        entry | {"masks": masks, "pixels": pixels}
        for entry, masks, pixels in zip(taxonomy.as_list(), masks_K, pixels_K, strict=True)
    ]


def _files(source: SourceFolder, written: WrittenDataset) -> list[dict[str, Any]]:
    """One entry for each file of the source: what it was read as, and what became of it."""
    became: dict[str, dict[str, Any]] = {}
    split_of = {name: split for split, names in written.splits.items() for name in names}
    for each in written.images:
        for file in each.source.label_files:
            entry = became.setdefault(source.relative(file), {"as": "label", "of": [], "masks": []})
            entry["of"].append(each.name)
            entry["masks"] += [each.mask] if each.mask else []
        if isinstance(each.source.image, Path):
            entry = {"as": "image", "image": each.image or None, "split": split_of.get(each.name)}
            became[source.relative(each.source.image)] = entry
    became |= {file: {"as": what} for file, what in source.used.items() if file not in became}
    return [{"file": file} | became.get(file, {"as": "not used"}) for file in source.files]


def _report_unused(images: Sequence[WrittenImage], plan: ClassPlan, losses: Losses) -> None:
    used: Counter[int] = Counter()
    for each in images:
        if each.counts_K is not None:
            used.update(np.flatnonzero(each.counts_K).tolist())
    for index, name in enumerate(plan.taxonomy.names):
        if not used[index]:
            losses.add("unused class", NEVER_USED, name)


def _examples(losses: Losses) -> str:
    return "; ".join(
        example for loss in losses.groups() if loss.kind == "unreadable image" for example in loss.examples
    )
