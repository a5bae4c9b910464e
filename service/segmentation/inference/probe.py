"""Run a bundle's probe: test images and the masks that its graph must return."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from service.errors import BundleInvalid, ImageTooLarge, StorageFailed, Unavailable, names_only
from service.segmentation.inference.engine import Engine
from service.segmentation.inference.predictor import Mask, Pixels


def run_probe(engine: Engine, file: Path, *, mask_agreement: float) -> float:
    """Run every image of a probe, in the process that will serve the model; return the smallest share of equal pixels.

    `file` is probe.npz with image_0, mask_0, image_1, mask_1, ...; in each mask a share of at least `mask_agreement`,
    0..1, must be equal.

    Raises:
        BundleInvalid: The share is too small, the graph failed, or the probe is unreadable.
        Unavailable: This machine's memory, GPU or limits prevented the test.
    """
    worst = 1.0
    for number, (image_HW3, mask_HW) in enumerate(_pairs(file)):
        try:
            found_HW = engine.run(image_HW3).mask_HW
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
    return worst


def _pairs(file: Path) -> list[tuple[Pixels, Mask]]:
    try:
        with file.open("rb") as handle, np.load(handle, allow_pickle=False) as arrays:
            count = sum(name.startswith("image_") for name in arrays.files)
            pairs = [(arrays[f"image_{i}"], arrays[f"mask_{i}"]) for i in range(count)]
    except (FileNotFoundError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise BundleInvalid(f"{file.name} is unreadable ({names_only(str(error))}): export again.") from None
    except OSError as error:
        raise StorageFailed(f"{file.name} cannot be read ({error.strerror}): check the disk.") from None
    if not pairs:
        raise BundleInvalid(f"{file.name} is empty: export the bundle again.")
    for image, mask in pairs:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or mask.shape != image.shape[:2]:
            raise BundleInvalid(f"{file.name}: images must be uint8 [H, W, 3], masks [H, W]: export again.")
    return pairs
