"""Data sets of Hugging Face's `datasets`: folders of save_to_disk."""

import re
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from trainer.counted import counted
from trainer.data.dataset import Sample
from trainer.data.decode import ImageError
from trainer.data.imports.import_options import ImportOptions
from trainer.data.imports.known_format import KnownFormat
from trainer.data.imports.pixel_masks.mask_label import MaskFile
from trainer.data.imports.pixel_masks.read_labels import read_labels
from trainer.data.imports.source.annotated import SPLITS, Annotated, Imported, Label
from trainer.data.imports.source.json_file import read_json
from trainer.data.imports.source.loss_report import Losses
from trainer.data.imports.source.source_error import SourceError
from trainer.data.imports.source.source_folder import SourceFolder
from trainer.data.mask_encoding import MaskEncoding
from trainer.data.readers.huggingface import HuggingFaceDataset
from trainer.taxonomy import IGNORE, Taxonomy

MARKS = ("dataset_dict.json", "dataset_info.json")
SIGNATURES = {b"\x89PNG": ".png", b"\xff\xd8": ".jpg", b"RIFF": ".webp", b"BM": ".bmp", b"II": ".tif", b"MM": ".tif"}
PLAIN_NAME = re.compile(r"[\w-][\w.-]*")
SAVE = "python -c \"import datasets; datasets.load_dataset('FOLDER').save_to_disk('OTHER')\""


def find(source: SourceFolder) -> str | None:
    """See KnownFormat."""
    arrow = source.below(".", (".arrow",))
    if arrow and any(mark in source.files for mark in MARKS):
        return f"{counted(len(arrow), 'Arrow file', 'Arrow files')} of save_to_disk"
    parquet = source.below(".", (".parquet",))
    return counted(len(parquet), "Parquet file", "Parquet files") if parquet else None


def read(source: SourceFolder, options: ImportOptions, losses: Losses) -> Imported:
    """See KnownFormat. Images and masks keep their bytes: `datasets` would turn a palette into colours."""
    if source.below(".", (".parquet",)) and not source.below(".", (".arrow",)):
        raise SourceError(f"{source.title}: Parquet files of Hugging Face; save them as a folder: {SAVE}")
    _check_names(source)
    for file in source.files:
        if file.endswith((".arrow", ".json")):
            source.used[file] = "rows" if file.endswith(".arrow") else "description"
    none = (Taxonomy((), ()), MaskEncoding.identity(0, IGNORE))
    dataset = HuggingFaceDataset(source.root, source.root / "splits", none, partial(_find_file, source))
    samples = [sample for split in dataset.splits() for sample in dataset.split(split)]
    masks = {sample.name: _mask(dataset, sample) for sample in samples if dataset.has_mask(sample)}
    classes, labels = read_labels(masks, source, options, losses)
    images = [_row(dataset, sample, labels.get(sample.name)) for sample in samples]
    return Imported(classes=classes, images=images, has_rest=False)


def _check_names(source: SourceFolder) -> None:
    """Raise SourceError if a description names a file outside its folder."""
    for file in source.below(".", (".json",)):
        name = PurePosixPath(file).name
        table = read_json(source, file) if name in {"dataset_dict.json", "state.json"} else {}
        named = _names(table.get("splits"), None) + _names(table.get("_data_files"), "filename")
        if wrong := [each for each in named if not PLAIN_NAME.fullmatch(each)]:
            raise SourceError(f"{file}: names {wrong[0]!r}, which is no plain name; write it with save_to_disk")


def _names(entries: Any, key: str | None) -> list[str]:
    values = entries if isinstance(entries, list) else []
    return [str(each[key] if key and isinstance(each, dict) else each) for each in values]


def _find_file(source: SourceFolder, named: str) -> Path:
    """The file of a row without bytes: one within the source."""
    if found := source.match(named):
        return source.path(found)
    raise ImageError(f"{PurePosixPath(named).name}: is not in the source; save the data set with its images' bytes")


def _mask(dataset: HuggingFaceDataset, sample: Sample) -> MaskFile:
    image, mask = (partial(dataset.read_bytes, sample, mask=is_mask) for is_mask in (False, True))
    return MaskFile(mask, f"mask of {sample.name}", image)


def _row(dataset: HuggingFaceDataset, sample: Sample, label: Label | None) -> Annotated:
    split, _, row = sample.name.rpartition("/")
    name = f"{split}_{int(row):06}"
    image = partial(dataset.read_bytes, sample, mask=False)
    start = dataset.read_bytes(sample, mask=False, limit=4)
    suffix = next((suffix for signature, suffix in SIGNATURES.items() if start.startswith(signature)), ".avif")
    path = f"{split}/{row}{suffix}"
    return Annotated(image=image, path=path, name=name, label=label, split=SPLITS.get(split.casefold(), ""))


HUGGING_FACE_FORMAT = KnownFormat(
    name="huggingface",
    title="data set of Hugging Face's `datasets` (save_to_disk)",
    looked_for="dataset_dict.json or dataset_info.json, with Arrow files",
    find=find,
    read=read,
)
