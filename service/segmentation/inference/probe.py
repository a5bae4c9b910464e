"""The probe: images with the masks that they must give, run in the very process that is going to serve."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from service.errors import BundleInvalid, ImageTooLarge, StorageFailed, Unavailable, names_only
from service.segmentation.inference.engine import Engine, Mask


def run_probe(engine: Engine, file: Path, *, mask_agreement: float) -> float:
    """Run every image of a probe and compare.

    Args:
        engine: What is to be trusted.
        file: probe.npz: image_0, mask_0, image_1, mask_1, ...
        mask_agreement: Least share of equal pixels in each mask, 0..1.

    Returns:
        The smallest share that was found.

    Raises:
        BundleInvalid: Below the tolerance, the graph failed, or the probe cannot be read.
        Unavailable: Memory, the GPU or the limits of this machine kept it from being run.
    """
    worst = 1.0
    for number, (image_HW3, mask_HW) in enumerate(_pairs(file)):
        try:
            found_HW = engine.run(image_HW3).mask_HW
        except Unavailable:
            raise
        except ImageTooLarge as error:
            raise Unavailable(f"image_{number} of {file.name} is more than this service allows. {error}") from None
        except Exception as error:
            raise BundleInvalid(f"The graph fails on image_{number} of {file.name} ({error}): export again.") from None
        if found_HW.shape != mask_HW.shape:
            raise BundleInvalid(f"mask_{number} of {file.name} is {mask_HW.shape}, the graph gave {found_HW.shape}.")
        worst = min(worst, float(np.mean(found_HW == mask_HW)))
        if worst < mask_agreement:
            raise BundleInvalid(
                f"The probe failed: on image_{number} {worst:.4%} of the pixels agree and {mask_agreement:.4%} must. "
                "Graph and probe do not belong together, or this onnxruntime computes it wrongly: export again here."
            )
    return worst


def _pairs(file: Path) -> list[tuple[npt.NDArray[np.uint8], Mask]]:
    try:
        with file.open("rb") as handle, np.load(handle, allow_pickle=False) as arrays:
            count = sum(name.startswith("image_") for name in arrays.files)
            pairs = [(arrays[f"image_{i}"], arrays[f"mask_{i}"]) for i in range(count)]
    except (FileNotFoundError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise BundleInvalid(f"{file.name} cannot be read ({names_only(str(error))}): export again.") from None
    except OSError as error:
        raise StorageFailed(f"{file.name} cannot be read ({error.strerror}): look after the disk.") from None
    if not pairs:
        raise BundleInvalid(f"{file.name} is empty: export the bundle again.")
    for image, mask in pairs:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or mask.shape != image.shape[:2]:
            raise BundleInvalid(f"{file.name}: images must be uint8 [H, W, 3], masks [H, W]: export again.")
    return pairs
