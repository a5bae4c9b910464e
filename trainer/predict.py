"""Masks of photographs, as files."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from trainer.checkpoint import Checkpoint
from trainer.data.decode import read_image
from trainer.models.predictor import MaskPredictor

OVERLAY_OPACITY = 0.5


@torch.inference_mode()
def predict(checkpoint: Checkpoint, images: Sequence[Path], out: Path) -> Iterator[Path]:
    """Write OUT/NAME.png (indexed, pixel = class id) and OUT/NAME.overlay.jpg for each image; yield the masks' paths.

    Raises:
        ImageError: an image cannot be decoded.
    """
    out.mkdir(parents=True, exist_ok=True)
    predictor = MaskPredictor(checkpoint.model, checkpoint.recipe["inference"]["long_side"]).eval()
    palette_K3 = np.array(checkpoint.taxonomy.colors, dtype=np.uint8)
    for path in images:
        image_HWC = read_image(path)
        mask_HW = predictor(torch.from_numpy(image_HWC.copy())[None])[0][0].numpy()
        _save_mask(out / f"{path.stem}.png", mask_HW, palette_K3)
        blend_HWC = image_HWC * (1 - OVERLAY_OPACITY) + palette_K3[mask_HW] * OVERLAY_OPACITY
        Image.fromarray(blend_HWC.astype(np.uint8)).save(out / f"{path.stem}.overlay.jpg", quality=92)
        yield out / f"{path.stem}.png"


def _save_mask(
    path: Path,
    mask_HW: np.ndarray[tuple[int, ...], np.dtype[np.integer]],
    palette_K3: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
) -> None:
    if len(palette_K3) > 256:
        Image.fromarray(mask_HW.astype(np.uint16)).save(path)
        return
    image = Image.fromarray(mask_HW.astype(np.uint8))
    image.putpalette(palette_K3.tobytes())
    image.save(path)
