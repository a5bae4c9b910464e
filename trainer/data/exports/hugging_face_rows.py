"""Hugging Face: a `DatasetDict` as its method `save_to_disk` writes it, with the columns image, mask, name and group.

Masks are grey, not indexed: `datasets` and transformers would convert the indices of a palette to luminances.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

from trainer.data.classes_file import classes_text
from trainer.data.exports.exported_dataset import ExportedDataset, ExportedImage, ExportError, Split
from trainer.data.exports.mask_bytes import grey_png
from trainer.data.exports.output_sink import Sink

ROWS: dict[Split, str] = {"labelled": "train", "val": "validation", "test": "test", "unlabelled": "unlabelled"}
"""The usual name of each split."""
IGNORED = "pixels of the value {} are ignored"
IGNORED_REMEDY = "give this value to the loss, as ignore_index of transformers' models"
WIDE = (
    'the data set has more than 255 classes, so masks have 16 bits; code that opens them with convert("L") loses them'
)
ROWS_IN_MEMORY = 32


def write_hugging_face(dataset: ExportedDataset, sink: Sink) -> None:
    """Write the data set. Raises ExportError if the package `datasets` is not installed."""
    try:
        import datasets  # noqa: PLC0415 (an optional dependency of this format)
    except ImportError as error:
        remedy = "run pip install 'maskloop[huggingface]' or pip install datasets"
        raise ExportError(
            f"the format huggingface needs the package datasets, which is not installed; {remedy}"
        ) from error
    # The terminal shows the bar of all formats.
    datasets.disable_progress_bars()
    taxonomy = dataset.taxonomy
    with tempfile.TemporaryDirectory() as work:
        saved = Path(work) / "saved"
        datasets.DatasetDict(_splits(datasets, dataset, Path(work))).save_to_disk(saved)
        for path in sorted(each for each in saved.rglob("*") if each.is_file()):
            sink.add(path.relative_to(saved).as_posix(), path.read_bytes())
    names = {str(index): name for index, name in enumerate(taxonomy.names)}
    sink.add("id2label.json", json.dumps(names, ensure_ascii=False, indent=1).encode())
    sink.add(
        "classes.toml", classes_text(taxonomy.names, taxonomy.colors, taxonomy.ignore_index, "export-labels").encode()
    )


def _splits(datasets: Any, dataset: ExportedDataset, work: Path) -> dict[str, Any]:
    """Write the rows of each split to a file, and open these."""
    from datasets.arrow_writer import ArrowWriter  # noqa: PLC0415 (as above)

    columns = {"image": datasets.Image()} if dataset.with_images else {}
    text = datasets.Value("string")
    features = datasets.Features(columns | {"mask": datasets.Image(), "name": text, "group": text})
    writers = {
        split: ArrowWriter(features=features, path=str(work / f"{name}.arrow"), writer_batch_size=ROWS_IN_MEMORY)
        for split, name in ROWS.items()
        if dataset.in_split(split)
    }

    def convert(image: ExportedImage) -> tuple[bytes | None, bool]:
        mask_HW = dataset.mask(image)
        if mask_HW is None:
            return None, False
        return grey_png(mask_HW), bool((mask_HW == dataset.taxonomy.ignore_index).any())

    for image, (mask, ignored) in dataset.each(convert):
        row: dict[str, Any] = {
            "mask": mask and {"bytes": mask, "path": None},
            "name": image.name,
            "group": image.group or None,
        }
        if dataset.with_images:
            row["image"] = {"bytes": dataset.content(image), "path": image.file}
        writers[image.split].write(row)
        if ignored:
            message = IGNORED.format(dataset.taxonomy.ignore_index)
            dataset.losses.add("ignored pixels", message, image.name, remedy=IGNORED_REMEDY)
    for writer in writers.values():
        writer.finalize()
    if len(dataset.taxonomy) > 255:
        dataset.losses.add("16 bits", WIDE, f"{len(dataset.taxonomy)} classes")
    return {ROWS[split]: datasets.Dataset.from_file(str(work / f"{ROWS[split]}.arrow")) for split in writers}
