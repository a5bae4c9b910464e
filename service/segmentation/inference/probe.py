"""Run a bundle's probe: test images, and the masks and embeddings that its graph must return."""

# H W pixels, D channels

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from service.errors import BundleInvalid, ImageTooLarge, StorageFailed, Unavailable, names_only
from service.segmentation.inference.engine import Engine
from service.segmentation.inference.predictor import Embedding, Mask, Pixels


@dataclass(frozen=True, slots=True)
class _Case:
    image_HW3: Pixels
    mask_HW: Mask
    embedding_D: Embedding | None


def run_probe(engine: Engine, file: Path, *, mask_agreement: float, min_embedding_cosine: float | None = None) -> float:
    """Run every image of a probe, in the process that will serve the model; return the smallest share of equal pixels.

    `file` is probe.npz with image_0, mask_0, embedding_0, image_1, ...; in each mask a share of at least
    `mask_agreement`, 0..1, must be equal, and the cosine of each embedding with the stored one must be at least
    `min_embedding_cosine` (None: the bundle has no embeddings).

    Raises:
        BundleInvalid: The share or cosine is too small, the graph failed, or the probe is unreadable.
        Unavailable: This machine's memory, GPU or limits prevented the test.
    """
    worst = 1.0
    for number, case in enumerate(_cases(file)):
        mask_HW = case.mask_HW
        try:
            found = engine.run(case.image_HW3)
            found_HW = found.mask_HW
        except Unavailable:
            raise
        except ImageTooLarge as error:
            raise Unavailable(f"image_{number} of {file.name} exceeds a limit of this service. {error}") from None
        except Exception as error:
            raise BundleInvalid(f"The graph fails on image_{number} of {file.name} ({error}): export again.") from None
        if found_HW.shape != mask_HW.shape:
            raise BundleInvalid(
                f"mask_{number} of {file.name} is {mask_HW.shape}, the graph returned {found_HW.shape}: export again."
            )
        worst = min(worst, float(np.mean(found_HW == mask_HW)))
        if worst < mask_agreement:
            raise BundleInvalid(
                f"The probe failed: {worst:.4%} of the pixels of image_{number} agree; at least {mask_agreement:.4%} "
                "must. The graph is not the probe's, or this onnxruntime computes it differently: export again here."
            )
        if min_embedding_cosine is not None:
            check_cosine(case.embedding_D, found.embedding_D, min_embedding_cosine, f"image_{number}")
    return worst


def check_cosine(expected_D: Embedding | None, found_D: Embedding | None, minimum: float, image: str) -> None:
    """Raise BundleInvalid if an embedding is missing, or the cosine of the two is below `minimum`."""
    if expected_D is None or found_D is None or expected_D.shape != found_D.shape:
        raise BundleInvalid(f"The probe or the graph has no embedding of {image}, or of another length: export again.")
    found = cosine(expected_D, found_D)
    # Negated, so that NaN fails.
    if not found >= minimum:
        raise BundleInvalid(
            f"The probe failed: the cosine of the embedding of {image} with the expected one is {found:.5f}; at least "
            f"{minimum} is required. The graph is not the probe's, or this onnxruntime computes it differently: export "
            "again here."
        )


def cosine(a_D: Embedding, b_D: Embedding) -> float:
    """Cosine of two vectors, -1 to 1; 1 if both are zero, NaN if only one is."""
    if np.array_equal(a_D, b_D):
        return 1.0
    a, b = a_D.astype(np.float32), b_D.astype(np.float32)
    with np.errstate(invalid="ignore"):
        return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def _cases(file: Path) -> list[_Case]:
    try:
        with file.open("rb") as handle, np.load(handle, allow_pickle=False) as arrays:
            count = sum(name.startswith("image_") for name in arrays.files)
            cases = [
                _Case(arrays[f"image_{i}"], arrays[f"mask_{i}"], arrays.get(f"embedding_{i}")) for i in range(count)
            ]
    except (FileNotFoundError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise BundleInvalid(f"{file.name} is unreadable ({names_only(str(error))}): export again.") from None
    except OSError as error:
        raise StorageFailed(f"{file.name} cannot be read ({error.strerror}): check the disk.") from None
    if not cases:
        raise BundleInvalid(f"{file.name} is empty: export the bundle again.")
    for image, mask in ((case.image_HW3, case.mask_HW) for case in cases):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or mask.shape != image.shape[:2]:
            raise BundleInvalid(f"{file.name}: images must be uint8 [H, W, 3], masks [H, W]: export again.")
    if any(case.embedding_D is not None and case.embedding_D.dtype != np.float16 for case in cases):
        raise BundleInvalid(f"{file.name}: embeddings must be float16 [D]: export again.")
    return cases
