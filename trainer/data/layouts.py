"""Which layout a folder has, and the data set that it makes."""

from pathlib import Path

from trainer.data.dataset import DatasetError, SegmentationDataset
from trainer.data.folder import FolderDataset
from trainer.taxonomy import read_taxonomy


def open_dataset(root: Path, layout: str = "auto", splits: Path | None = None) -> SegmentationDataset:
    """Open the data set at `root`.

    Args:
        root: its folder.
        layout: recipe's data.format; "auto" goes by what lies in the folder.
        splits: folder of the split files; None = ROOT/splits.

    Raises:
        DatasetError, TaxonomyError: it is none, with what was looked for.
    """
    if not root.is_dir():
        raise DatasetError(f"{root}: there is no such folder; set data.root to a data set")
    if layout not in {"auto", "folder"}:
        raise DatasetError(f"data.format = {layout!r}: is not read yet; use folder")
    return FolderDataset(root, read_taxonomy(root), splits or root / "splits")
