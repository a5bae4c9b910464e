"""Read the validation images of a run and their labels."""

# H W pixels

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from service.classes.class_list import ClassList
from service.images.label_masks import read_mask
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


@dataclass(frozen=True, slots=True)
class SampleFiles:
    """Files of a validation image, and its group."""

    image: Path
    mask: Path
    group: str | None = None


def read_samples(
    files: Iterable[SampleFiles], classes: ClassList, ranges: Collection[ValueRange | None], limits: Limits
) -> Iterator[Sample]:
    """Read the images and their labels. `classes` is the list of the labels. Raises MaskInvalid."""
    for each in files:
        data = each.image.read_bytes()
        pixels = {value_range: decode(data, limits, value_range).image_HW3 for value_range in ranges}
        height, width = next(iter(pixels.values())).shape[:2]
        mask_HW = read_mask(each.mask.read_bytes(), width=width, height=height, classes=classes)
        yield Sample(pixels, mask_HW, each.group)
