"""Data loading of a plain implementation of UniMatch V2's published training: everything on PIL images, in the workers.

Written from the paper (arXiv 2410.10777, section 5.1) and known properties of its code. Each unlabelled image becomes
three normalised float views, a padding mask and two CutMix boxes, which all go to the device.
"""

# C channels, H W pixels of the crop

import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision.transforms import ColorJitter, RandomGrayscale
from torchvision.transforms import functional as F  # noqa: N812 (the field's name for it)

IGNORE = 255
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class PlainLabelled(NamedTuple):
    """Normalised float [3,H,W] and class ids int64 [H,W]."""

    image: Tensor
    mask: Tensor


class PlainUnlabelled(NamedTuple):
    """Three normalised views float [3,H,W], padding int64 [H,W] (255 = outside the image), two boxes float [H,W]."""

    weak: Tensor
    strong1: Tensor
    strong2: Tensor
    padding: Tensor
    box1: Tensor
    box2: Tensor


class PlainPairs(Dataset[PlainLabelled]):
    """Labelled photographs, weakly augmented."""

    def __init__(self, root: Path, crop: int) -> None:
        self._root, self._crop = root, crop
        self._names = (root / "splits/labelled.txt").read_text(encoding="utf-8").split()

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> PlainLabelled:
        name = self._names[index]
        photograph = Image.open(self._root / f"images/{name}.jpg").convert("RGB")
        image, mask = weak(photograph, Image.open(self._root / f"masks/{name}.png"), self._crop)
        return PlainLabelled(normalised(image), torch.from_numpy(np.array(mask)).long())


class PlainViews(Dataset[PlainUnlabelled]):
    """Unlabelled photographs, one weak and two strong views of one crop."""

    def __init__(self, root: Path, crop: int) -> None:
        self._root, self._crop = root, crop
        self._names = (root / "splits/unlabelled.txt").read_text(encoding="utf-8").split()

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> PlainUnlabelled:
        image = Image.open(self._root / f"images/{self._names[index]}.jpg").convert("RGB")
        image, padding = weak(image, Image.fromarray(np.zeros(image.size[::-1], dtype=np.uint8)), self._crop)
        return PlainUnlabelled(
            normalised(image),
            normalised(strong(image)),
            normalised(strong(image)),
            torch.from_numpy(np.array(padding)).long(),
            box(self._crop),
            box(self._crop),
        )


def weak(image: Image.Image, mask: Image.Image, crop: int) -> tuple[Image.Image, Image.Image]:
    """Random resize by 0.5-2.0 of the long side, padding, random crop and flip, of an image and its mask."""
    width, height = image.size
    long_side = random.randint(int(max(width, height) * 0.5), int(max(width, height) * 2.0))  # noqa: S311
    factor = long_side / max(width, height)
    size = (int(width * factor + 0.5), int(height * factor + 0.5))
    image, mask = image.resize(size, Image.Resampling.BILINEAR), mask.resize(size, Image.Resampling.NEAREST)
    padding = (0, 0, max(crop - size[0], 0), max(crop - size[1], 0))
    image = F.pad(image, padding, fill=0)
    mask = F.pad(mask, padding, fill=IGNORE)
    left = random.randint(0, image.size[0] - crop)  # noqa: S311
    top = random.randint(0, image.size[1] - crop)  # noqa: S311
    window = (left, top, left + crop, top + crop)
    image, mask = image.crop(window), mask.crop(window)
    if random.random() < 0.5:  # noqa: S311
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), mask.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image, mask


def strong(image: Image.Image) -> Image.Image:
    """Colour jitter with probability 0.8, greyscale with 0.2, blur with 0.5."""
    if random.random() < 0.8:  # noqa: S311
        image = ColorJitter(0.5, 0.5, 0.5, 0.25)(image)
    image = RandomGrayscale(p=0.2)(image)
    if random.random() < 0.5:  # noqa: S311
        image = image.filter(ImageFilter.GaussianBlur(radius=random.uniform(0.1, 2.0)))  # noqa: S311
    return image


def normalised(image: Image.Image) -> Tensor:
    """Float [3,H,W], normalised with ImageNet's mean and standard deviation."""
    tensor: Tensor = F.normalize(F.to_tensor(image), MEAN, STD)
    return tensor


def box(crop: int) -> Tensor:
    """A CutMix box with probability 0.5, float [H,W]: 1 inside the box."""
    mask_HW = torch.zeros(crop, crop)
    if random.random() > 0.5:  # noqa: S311
        return mask_HW
    area = np.random.uniform(0.02, 0.4) * crop * crop
    while True:
        ratio = np.random.uniform(0.3, 1 / 0.3)
        width, height = int(np.sqrt(area / ratio)), int(np.sqrt(area * ratio))
        left, top = random.randint(0, crop), random.randint(0, crop)  # noqa: S311
        if left + width <= crop and top + height <= crop:
            mask_HW[top : top + height, left : left + width] = 1
            return mask_HW


def plain_batches(
    root: Path, crop: int, batch: int, workers: int, *, pinned: bool
) -> Iterator[tuple[PlainLabelled, PlainUnlabelled]]:
    """Return an endless iterator of batches from two loaders with `workers` processes each."""

    def loader(dataset: PlainPairs | PlainViews) -> DataLoader[PlainLabelled | PlainUnlabelled]:
        sampler = RandomSampler(dataset, replacement=True, num_samples=10**6)
        return DataLoader(dataset, batch, sampler=sampler, num_workers=workers, pin_memory=pinned, drop_last=True)

    return zip(loader(PlainPairs(root, crop)), loader(PlainViews(root, crop)), strict=True)
