"""Validation images of a run's data set, with their masks."""

# H, W pixels

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from service.images.label_masks import read_mask
from service.models.bundle import Manifest
from service.runs.gate import Pair
from service.runs.snapshot import image_file, names
from service.segmentation.decode import Limits, decode


def read_pairs(dataset: Path, manifest: Manifest, limits: Limits) -> Iterator[Pair]:
    """Yield the validation images of a run's data set and their masks. Raises FileLost, MaskInvalid."""
    for name in names(dataset, "val"):
        image_HW3 = decode(image_file(dataset, name).read_bytes(), limits, manifest.value_range).image_HW3
        height, width = image_HW3.shape[:2]
        mask_HW = read_mask(
            (dataset / "masks" / f"{name}.png").read_bytes(),
            width=width,
            height=height,
            classes=len(manifest.classes),
            ignore_index=manifest.ignore_index,
        )
        yield image_HW3, mask_HW
