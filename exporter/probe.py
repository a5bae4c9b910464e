"""The probe: a few images, made here and always the same, by which a graph is compared with the network.

They are scenes of soft light, discs, boxes and grain, so that a network sees edges, surfaces and texture, and they need
nobody's photographs. One has sides that fit the network, one has none that does and is not square, and where the graph
resizes to a long side, one is longer than it.
"""

# N images, H W pixels, 3 = RGB

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

Bytes = npt.NDArray[np.uint8]
Ids = npt.NDArray[np.unsignedinteger]
Predict = Callable[[Bytes], tuple[Ids, Bytes]]
"""uint8 [N, H, W, 3] to mask [N, H, W] and confidence uint8 [N, H, W]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One probe image [H, W, 3] and a predictor's mask and confidence for it, both [H, W]."""

    image: Bytes
    mask: Ids
    confidence: Bytes


def probe_images(*, multiple: int, long_side: int) -> list[Bytes]:
    """The images, uint8 [H, W, 3], for a network whose sides are multiples of `multiple` pixels."""
    height, width = (-(-side // multiple) * multiple for side in (96, 128))
    sizes = [(height, width), (width + multiple // 2 + 1, height - multiple // 2 - 1)]
    if long_side:
        sizes.append((long_side * 5 // 8, long_side * 5 // 4))
    return [scene(height, width, seed) for seed, (height, width) in enumerate(sizes)]


def scene(height: int, width: int, seed: int) -> Bytes:
    """One synthetic image, uint8 [H, W, 3]; the same arguments give the same pixels."""
    rng = np.random.default_rng(seed)
    light = Image.fromarray(rng.integers(40, 216, (5, 5, 3), dtype=np.uint8))
    image_HW3 = np.array(light.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
    y_HW, x_HW = np.indices((height, width))
    for shape in range(10):
        y, x = rng.uniform(0, height), rng.uniform(0, width)
        half = rng.uniform(0.06, 0.22) * min(height, width)
        down_HW, right_HW = np.abs(y_HW - y), np.abs(x_HW - x)
        disc, box = np.hypot(down_HW, right_HW) < half, np.maximum(down_HW, 0.6 * right_HW) < half
        image_HW3[disc if shape % 2 else box] = rng.integers(0, 256, 3)
    # Coarse grain: fine noise would make the file larger than the network.
    grain = rng.integers(-12, 13, (-(-height // 4), -(-width // 4), 1))
    image_HW3 += grain.repeat(4, axis=0).repeat(4, axis=1)[:height, :width].astype(np.int16)
    return np.clip(image_HW3, 0, 255).astype(np.uint8)


def ask(predict: Predict, images: list[Bytes]) -> list[Answer]:
    """The predictor's answer to each image, and once more to the first one, this time in a batch with its mirror image.

    So one answer more than images; the last equals the first if an image's answer does not depend on its neighbours.
    """
    batches = [image[None] for image in images]
    batches.append(np.stack([images[0], images[0][:, ::-1]]))
    answers = []
    for batch_NHW3 in batches:
        mask_NHW, confidence_NHW = predict(batch_NHW3)
        answers.append(Answer(image=batch_NHW3[0], mask=mask_NHW[0], confidence=confidence_NHW[0]))
    return answers


def mask_agreement(first: list[Ids], second: list[Ids]) -> float:
    """Fraction of pixels at which two predictors name the same class, in the image where it is least: [0, 1]."""
    return min(float(np.mean(a == b)) for a, b in zip(first, second, strict=True))


def confidence_difference(first: list[Answer], second: list[Answer]) -> int:
    """Largest difference of a confidence, in steps of 1/255."""
    pairs = zip(first, second, strict=True)
    return max(int(np.abs(a.confidence.astype(np.int16) - b.confidence).max()) for a, b in pairs)


def write_probe(file: Path, answers: list[Answer]) -> None:
    """Arrays image_0, mask_0, image_1, mask_1, ..."""
    arrays: dict[str, Ids] = {}
    for number, answer in enumerate(answers):
        arrays |= {f"image_{number}": answer.image, f"mask_{number}": answer.mask}
    np.savez_compressed(file, allow_pickle=False, **arrays)


def read_probe(file: Path) -> tuple[list[Bytes], list[Ids]]:
    """The images [H, W, 3] that `write_probe` wrote and their masks [H, W].

    Raises:
        ValueError: Arrays are missing, or their shapes do not fit together.
    """
    try:
        with np.load(file, allow_pickle=False) as archive:
            arrays: Mapping[str, Bytes] = dict(archive)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file}: cannot be read ({error}); export the bundle again") from error
    count = sum(name.startswith("image_") for name in arrays)
    try:
        images = [arrays[f"image_{number}"] for number in range(count)]
        masks: list[Ids] = [arrays[f"mask_{number}"] for number in range(count)]
    except KeyError as error:
        raise ValueError(f"{file}: array {error} is missing; export the bundle again") from error
    if not images:
        raise ValueError(f"{file}: no image; export the bundle again")
    for image, mask in zip(images, masks, strict=True):
        if image.shape != (*mask.shape, 3) or image.dtype != np.uint8:
            raise ValueError(f"{file}: an image and its mask do not fit together; export the bundle again")
    return images, masks
