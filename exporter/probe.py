"""Probe images: deterministic synthetic test images on which graphs are compared with PyTorch.

They show soft light, discs, boxes and grain, so that a network sees edges, surfaces and texture. The sides of the first
image are multiples of the network's, those of the second are not. The third is one row of five cells of the coarsest
map: an odd number, fewer than a window of most networks has. If the graph resizes, a fourth exceeds its long side.
"""

# N images, H W pixels, 3 = RGB, D channels

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

Bytes = npt.NDArray[np.uint8]
Ids = npt.NDArray[np.unsignedinteger]
Embedding = npt.NDArray[np.float16]


class Outputs(NamedTuple):
    """What a network returns for images uint8 [N,H,W,3]."""

    mask: Ids
    """[N,H,W]."""
    confidence: Bytes
    """[N,H,W], 255 = 1.0."""
    embedding: Embedding | None = None
    """[N,D], of length 1; None if the graph has none."""


Predict = Callable[[Bytes], Outputs]


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """One image [H,W,3] with its predicted mask and confidence, both [H,W], and its embedding [D], if any."""

    image: Bytes
    mask: Ids
    confidence: Bytes
    embedding: Embedding | None = None


def probe_images(*, multiple: int, long_side: int) -> list[Bytes]:
    """The probe images, uint8 [H,W,3].

    Sides of the network's input are multiples of `multiple` pixels. The graph resizes the longer side to `long_side`
    pixels, unless it is 0.
    """
    height, width = (-(-side // multiple) * multiple for side in (96, 128))
    sizes = [(height, width), (width + multiple // 2 + 1, height - multiple // 2 - 1), (multiple - 1, 5 * multiple + 1)]
    if long_side:
        sizes.append((long_side * 5 // 8, long_side * 5 // 4))
    return [scene(height, width, seed) for seed, (height, width) in enumerate(sizes)]


def scene(height: int, width: int, seed: int) -> Bytes:
    """A synthetic image, uint8 [H,W,3]; the same arguments give the same pixels."""
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
    # Coarse grain: with fine noise, the compressed probe would be larger than the network.
    grain = rng.integers(-12, 13, (-(-height // 4), -(-width // 4), 1))
    image_HW3 += grain.repeat(4, axis=0).repeat(4, axis=1)[:height, :width].astype(np.int16)
    return np.clip(image_HW3, 0, 255).astype(np.uint8)


def run(predict: Predict, images: list[Bytes]) -> list[Prediction]:
    """Predict each image alone, then the first one again in a batch with its mirror image.

    The last and first of the results, one more than `images`, are equal if a batch does not change predictions.
    """
    predictions = []
    for batch_NHW3 in [*(image[None] for image in images), np.stack([images[0], images[0][:, ::-1]])]:
        mask_NHW, confidence_NHW, embedding_ND = predict(batch_NHW3)
        embedding_D = None if embedding_ND is None else embedding_ND[0]
        predictions.append(
            Prediction(image=batch_NHW3[0], mask=mask_NHW[0], confidence=confidence_NHW[0], embedding=embedding_D)
        )
    return predictions


def mask_agreement(first: list[Ids], second: list[Ids]) -> float:
    """Fraction of equal pixels in the worst pair of masks, [0, 1]."""
    return min(float(np.mean(a == b)) for a, b in zip(first, second, strict=True))


def confidence_difference(first: list[Prediction], second: list[Prediction]) -> int:
    """Largest absolute difference of a confidence value, in steps of 1/255."""
    pairs = zip(first, second, strict=True)
    return max(int(np.abs(a.confidence.astype(np.int16) - b.confidence).max()) for a, b in pairs)


def embedding_cosine(first: Sequence[Embedding | None], second: Sequence[Embedding | None]) -> float | None:
    """Cosine of the most different pair of embeddings [D]; None if there are no embeddings.

    Raises ValueError if one of a pair is missing or has another length.
    """
    if not any(each is not None for each in (*first, *second)):
        return None
    found = []
    for a_D, b_D in zip(first, second, strict=True):
        if a_D is None or b_D is None or a_D.shape != b_D.shape:
            raise ValueError("an embedding is missing or has another length; export the bundle again")
        found.append(cosine(a_D, b_D))
    return min(found)


def cosine(a_D: Embedding, b_D: Embedding) -> float:
    """Cosine of two vectors [D], [-1, 1]; 1 if both are zero, -1 if only one is or a value is not finite."""
    if np.array_equal(a_D, b_D) and np.isfinite(a_D).all():
        return 1.0
    a, b = a_D.astype(np.float64), b_D.astype(np.float64)
    found = float(a @ b) / max(float(np.linalg.norm(a) * np.linalg.norm(b)), np.finfo(np.float64).tiny)
    return found if a.any() and b.any() and np.isfinite(found) else -1.0


def write_probe(file: Path, predictions: list[Prediction]) -> None:
    """Write probe.npz with the arrays image_0, mask_0, embedding_0, image_1, mask_1, embedding_1, ..."""
    arrays: dict[str, Ids | Embedding] = {}
    for number, each in enumerate(predictions):
        arrays |= {f"image_{number}": each.image, f"mask_{number}": each.mask}
        if each.embedding is not None:
            arrays[f"embedding_{number}"] = each.embedding
    np.savez_compressed(file, allow_pickle=False, **arrays)


def read_probe(file: Path) -> tuple[list[Bytes], list[Ids], list[Embedding | None]]:
    """Read images [H,W,3], masks [H,W], and embeddings [D], if the probe has them.

    Raises ValueError if an image or mask is missing or does not match.
    """
    try:
        with np.load(file, allow_pickle=False) as archive:
            numbers = range(sum(name.startswith("image_") for name in archive))
            images: list[Bytes] = [archive[f"image_{number}"] for number in numbers]
            masks: list[Ids] = [archive[f"mask_{number}"] for number in numbers]
            names = [f"embedding_{number}" for number in numbers]
            embeddings: list[Embedding | None] = [archive.get(name) for name in names]
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file}: cannot be read ({error}); export the bundle again") from error
    if not images:
        raise ValueError(f"{file}: contains no image; export the bundle again")
    for image, mask in zip(images, masks, strict=True):
        if image.shape != (*mask.shape, 3) or image.dtype != np.uint8:
            raise ValueError(f"{file}: shape or type of an image does not match its mask; export the bundle again")
    if any(each is not None and (each.ndim != 1 or each.dtype != np.float16) for each in embeddings):
        raise ValueError(f"{file}: shape or type of an embedding is not float16 [D]; export the bundle again")
    return images, masks, embeddings
