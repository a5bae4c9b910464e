"""Read the validation images of a run and their labels."""

# H W pixels

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from service.images.image_store import ImageStore
from service.images.label_masks import read_mask
from service.models.bundle import Manifest
from service.segmentation.decode import Limits, decode
from service.segmentation.formats.rgb import ValueRange

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Sample:
    """A validation image with its label."""

    pixels: Mapping[ValueRange | None, Pixels]
    """The image, uint8 [H, W, 3], decoded for each of the models' value ranges."""
    mask_HW: npt.NDArray[Any]
    """Class ids."""
    group: str | None = None
    """Images of one group, such as a video, are not independent and count as one unit. None: independent."""


def read_samples(
    images: ImageStore,
    ids: Sequence[str],
    manifest: Manifest,
    ranges: Collection[ValueRange | None],
    *,
    limits: Limits,
    groups: Sequence[str | None] | None = None,
) -> Iterator[Sample]:
    """Yield the images with these ids, with their labels and their groups.

    `manifest` defines class ids and the ignored one. Raises ImageNotFound, MaskInvalid.
    """
    for image_id, group in zip(ids, groups or [None] * len(ids), strict=True):
        data = images.path(image_id).read_bytes()
        pixels = {value_range: decode(data, limits, value_range).image_HW3 for value_range in ranges}
        height, width = next(iter(pixels.values())).shape[:2]
        mask_HW = read_mask(
            images.mask_path(image_id).read_bytes(),
            width=width,
            height=height,
            classes=len(manifest.classes),
            ignore_index=manifest.ignore_index,
        )
        yield Sample(pixels, mask_HW, group)
