"""Hugging Face datasets: an image column and a column of masks, saved to disk."""

import sys
from importlib.metadata import version
from pathlib import Path

from datasets import Dataset, DatasetDict, Features, Image
from PIL import Image as Pillow

from tests.trainer.data.imports.sdks.case import Case, new_source, scene_masks
from tests.trainer.data.imports.sdks.scene import CLASSES, FIELD_1, FIELD_2

TOOL = f"datasets {version('datasets')}"


def main(root: Path) -> None:
    """Write the case below a folder."""
    source = new_source(root, "huggingface-disk")
    work = new_source(root, "huggingface-photographs", [FIELD_1, FIELD_2])
    splits = {}
    for split, picture in (("train", FIELD_1), ("validation", FIELD_2)):
        mask = work / f"{picture.stem}_mask.png"
        Pillow.fromarray(picture.ids()).save(mask)
        rows = {"image": [str(work / picture.file_name)], "label": [str(mask)]}
        splits[split] = Dataset.from_dict(rows, features=Features({"image": Image(), "label": Image()}))
    DatasetDict(splits).save_to_disk(str(source))
    names = ("background", *CLASSES)
    for path in sorted(work.parent.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    work.parent.rmdir()
    case = Case(TOOL, "save_to_disk", arguments=["--class-names", *names])
    case.write(source, scene_masks([FIELD_1, FIELD_2]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
