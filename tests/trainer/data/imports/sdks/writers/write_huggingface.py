"""Hugging Face datasets: a column of images and one of masks, as Arrow or Parquet files."""

import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from datasets import Dataset, DatasetDict, Features, Image
from PIL import Image as Pillow

from tests.trainer.data.imports.sdks.case import Case, new_source
from tests.trainer.data.imports.sdks.scene import CLASSES, FIELD_1, FIELD_2, Picture

TOOL = f"datasets {version('datasets')}"


def main(root: Path) -> None:
    """Write the cases below a folder."""
    with tempfile.TemporaryDirectory() as work:
        splits = DatasetDict(
            {split: rows(picture, Path(work)) for split, picture in (("train", FIELD_1), ("validation", FIELD_2))}
        )
        source = new_source(root, "huggingface-disk")
        splits.save_to_disk(str(source))
        case = Case(TOOL, "save_to_disk", arguments=["--class-names", "background", *CLASSES])
        # The files have no names of images.
        case.write(source, {"train_000000": FIELD_1.ids(), "validation_000000": FIELD_2.ids()})

        source = new_source(root, "huggingface-parquet")
        for split, data in splits.items():
            data.to_parquet(str(source / f"{split}-00000-of-00001.parquet"))
        Case(TOOL, "Parquet", sentences=["save_to_disk"], is_refused=True).write(source, {})


def rows(picture: Picture, work: Path) -> Dataset:
    """A split of one image."""
    picture.save(work / picture.file_name)
    mask = work / f"{picture.stem}_mask.png"
    Pillow.fromarray(picture.ids()).save(mask)
    columns = {"image": [str(work / picture.file_name)], "label": [str(mask)]}
    return Dataset.from_dict(columns, features=Features({"image": Image(), "label": Image()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
