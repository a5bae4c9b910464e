"""Data sets of Hugging Face's `datasets` package, as written by `save_to_disk`.

A row has an Image feature for the image and, if labelled, one for the mask. Split files select rows as SPLIT/ROW:
train/0, train/1, ... Classes come from ROOT/classes.toml, or from ROOT/id2label.json.
"""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.data.classes_file import read_classes
from trainer.data.dataset import EVERYTHING, DatasetError, MissingImagesError, Sample, SegmentationDataset
from trainer.data.decode import ImageError, Source, decode_image, image_size
from trainer.data.mask_encoding import MaskEncoding
from trainer.data.readers.split_files import find_split_file, read_split_file, split_names
from trainer.taxonomy import IGNORE, Taxonomy, TaxonomyError, distinct_colors

IMAGE_COLUMNS = ("image", "img", "photo", "pixel_values")
MASK_COLUMNS = ("mask", "annotation", "label", "labels", "segmentation", "semantic_segmentation", "label_mask")
ALIASES = {"val": "validation"}


class HuggingFaceDataset(SegmentationDataset):
    """Rows of Arrow files; `image` and `mask` of a sample are identifiers for messages, not files."""

    how_to_validate = "split the rows (Dataset.train_test_split), and save some of them as the split validation"

    def __init__(
        self,
        root: Path,
        split_folder: Path,
        classes: tuple[Taxonomy, MaskEncoding] | None = None,
        find_file: Callable[[str], Path] = Path,
    ) -> None:
        """`classes` replaces those of the folder; `find_file` finds the file of a row that names one."""
        self.root, self.split_folder, self._find_file = root, split_folder, find_file
        self.taxonomy, self.encoding = classes or _classes(root)
        self._splits = _load(root)

    def split(self, name: str) -> tuple[Sample, ...]:
        """See SegmentationDataset."""
        source = find_split_file(self.split_folder, name)
        if name == EVERYTHING:
            return tuple(sample for split in self._splits for sample in self._rows(split))
        if not source:
            return self._rows(self._resolve(name))
        rows = {sample.name: sample for split in self._splits for sample in self._rows(split)}
        lines = read_split_file(source)
        samples = tuple(rows[line] for line in lines if line in rows)
        if missing := [line for line in lines if line not in rows]:
            raise MissingImagesError(source, missing, samples)
        return samples

    def splits(self) -> tuple[str, ...]:
        """See SegmentationDataset."""
        return tuple(sorted(split_names(self.split_folder) | set(self._splits)))

    def has_mask(self, sample: Sample) -> bool:
        """See SegmentationDataset."""
        return sample.mask is not None and self._cell(sample, mask=True) is not None

    def read(self, sample: Sample) -> npt.NDArray[np.uint8]:
        """See SegmentationDataset."""
        return decode_image(self._source(sample, mask=False), sample.image, self.value_range)

    def read_mask(self, sample: Sample, size: tuple[int, int]) -> npt.NDArray[np.int64]:
        """See SegmentationDataset."""
        return self.encoding.decode(self._source(sample, mask=True), sample.mask or sample.image, size)

    def size(self, sample: Sample) -> tuple[int, int]:
        """See SegmentationDataset."""
        return image_size(self._source(sample, mask=False), sample.image, self.value_range)

    def read_bytes(self, sample: Sample, *, mask: bool, limit: int = -1) -> bytes:
        """See SegmentationDataset."""
        source = self._source(sample, mask=mask)
        encoded = source.getvalue() if isinstance(source, io.BytesIO) else source.read_bytes()
        return encoded if limit < 0 else encoded[:limit]

    def _resolve(self, name: str) -> str:
        for existing in (name, ALIASES.get(name, name)):
            if existing in self._splits:
                return existing
        raise DatasetError(
            f"{self.root}: no such split {name!r}; existing splits: {', '.join(self.splits())}; name one of them in "
            "data.labelled, data.unlabelled or data.val"
        )

    def _rows(self, split: str) -> tuple[Sample, ...]:
        rows = self._splits[split]
        _, mask = _columns(rows, self.root / split)
        if not len(rows):
            raise DatasetError(f"{self.root / split}: has no rows; use another split")
        names = (f"{split}/{index}" for index in range(len(rows)))
        return tuple(Sample(name, self.root / name, self.root / name / mask if mask else None) for name in names)

    def _cell(self, sample: Sample, *, mask: bool) -> Any:
        split, _, index = sample.name.rpartition("/")
        rows = self._splits[split]
        column = _columns(rows, self.root / split)[mask]
        return rows[int(index)][column] if column else None

    def _source(self, sample: Sample, *, mask: bool) -> Source:
        cell = self._cell(sample, mask=mask)
        if cell is None:
            reason = f"the row has no {'mask' if mask else 'image'}; add one or remove the row from the labelled split"
            raise ImageError(f"{sample.image}: {reason}")
        return io.BytesIO(cell["bytes"]) if cell["bytes"] is not None else self._find_file(cell["path"])


def _load(root: Path) -> dict[str, Any]:
    """Load the splits, with encoded images. Raises DatasetError."""
    try:
        import datasets  # noqa: PLC0415 (an optional dependency of this layout)
    except ImportError as error:
        raise DatasetError(
            f"{root}: has the format of Hugging Face's datasets package, which is not installed; run "
            "pip install 'maskloop[huggingface]' or pip install datasets"
        ) from error
    try:
        loaded = datasets.load_from_disk(str(root))
    except (OSError, ValueError, KeyError) as error:
        raise DatasetError(f"{root}: cannot be loaded ({error}); write it with save_to_disk") from error
    splits = dict(loaded) if isinstance(loaded, datasets.DatasetDict) else {str(loaded.split or "train"): loaded}
    for name in splits:
        for column in filter(None, _columns(splits[name], root / name)):
            splits[name] = splits[name].cast_column(column, datasets.Image(decode=False))
    return splits


def _columns(rows: Any, where: Path) -> tuple[str, str | None]:
    """Names of the image and the mask column. Raises DatasetError without an image column."""
    pictures = [name for name, feature in rows.features.items() if type(feature).__name__ == "Image"]
    image = next((name for name in (*IMAGE_COLUMNS, *pictures) if name in pictures and name not in MASK_COLUMNS), None)
    if image is None:
        found = ", ".join(rows.features)
        raise DatasetError(f"{where}: has no image column, only {found}; cast one to datasets.Image()")
    return image, next((name for name in MASK_COLUMNS if name in pictures), None)


def _classes(root: Path) -> tuple[Taxonomy, MaskEncoding]:
    path = root / "id2label.json"
    if (root / "classes.toml").exists() or not path.exists():
        return read_classes(root / "classes.toml")
    try:
        table = json.loads(path.read_text(encoding="utf-8-sig"))
        names = [table[str(index)] for index in range(len(table))]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TaxonomyError(f"{path}: must map the ids 0, 1, ... to names ({error}); correct it") from error
    colors = distinct_colors(len(names))
    taxonomy = Taxonomy.from_list(
        [{"name": name, "color": [*color]} for name, color in zip(names, colors, strict=True)]
    )
    return taxonomy, MaskEncoding.identity(len(taxonomy), IGNORE)
