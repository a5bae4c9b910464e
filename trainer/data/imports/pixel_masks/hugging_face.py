"""Data sets of Hugging Face's `datasets`: folders of save_to_disk."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import PurePosixPath

from trainer.counted import counted
from trainer.data.dataset import Sample
from trainer.data.imports.import_options import ImportOptions
from trainer.data.imports.known_format import KnownFormat
from trainer.data.imports.pixel_masks.class_lists import with_void
from trainer.data.imports.pixel_masks.mask_label import MaskFile, PixelMask
from trainer.data.imports.source.annotated import SPLITS, Annotated, Imported, SourceClass
from trainer.data.imports.source.losses import Losses
from trainer.data.imports.source.source_folder import SourceFolder
from trainer.data.readers.huggingface import HuggingFaceDataset

MARKS = ("dataset_dict.json", "dataset_info.json")
SIGNATURES: Sequence[tuple[bytes, str]] = (
    (b"\x89PNG", ".png"),
    (b"\xff\xd8", ".jpg"),
    (b"RIFF", ".webp"),
    (b"BM", ".bmp"),
    (b"II", ".tif"),
    (b"MM", ".tif"),
)


def find(source: SourceFolder) -> str | None:
    """See KnownFormat."""
    if not any(mark in source.files for mark in MARKS):
        return None
    arrow = [file for file in source.files if file.endswith(".arrow")]
    return f"{counted(len(arrow), 'Arrow file', 'Arrow files')} of save_to_disk" if arrow else None


def read(source: SourceFolder, _options: ImportOptions, _losses: Losses) -> Imported:
    """See KnownFormat. Images and masks keep their bytes: `datasets` would turn a palette into colours."""
    dataset = HuggingFaceDataset(source.root, source.root / "splits")
    for file in source.files:
        if file.endswith((".arrow", ".json")):
            source.used[file] = "rows" if file.endswith(".arrow") else "description"
    images = [_row(dataset, sample) for split in dataset.splits() for sample in dataset.split(split)]
    pairs = zip(dataset.taxonomy.names, dataset.taxonomy.colors, strict=True)
    return Imported(classes=[SourceClass(*pair) for pair in pairs], images=images, has_rest=False)


def _row(dataset: HuggingFaceDataset, sample: Sample) -> Annotated:
    image = partial(dataset.read_bytes, sample, mask=False)
    label = None
    if dataset.has_mask(sample):
        mask: Callable[[], bytes] = partial(dataset.read_bytes, sample, mask=True)
        label = PixelMask(MaskFile(mask, f"mask of {sample.name}", image), with_void(dataset.encoding))
    split, _, row = sample.name.rpartition("/")
    name = f"{split}_{int(row):06}"
    path = PurePosixPath(split, f"{name}{_suffix(dataset.read_bytes(sample, mask=False, limit=4))}").as_posix()
    return Annotated(image=image, path=path, name=name, label=label, split=SPLITS.get(split.casefold(), ""))


def _suffix(start: bytes) -> str:
    return next((suffix for signature, suffix in SIGNATURES if start.startswith(signature)), ".avif")


HUGGING_FACE_FORMAT = KnownFormat(
    name="huggingface",
    title="data set of Hugging Face's `datasets` (save_to_disk)",
    looked_for="dataset_dict.json or dataset_info.json, with Arrow files",
    find=find,
    read=read,
)
