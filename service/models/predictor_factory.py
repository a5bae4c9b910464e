"""How a bundle answers for an image: in one piece, or by windows where its run judged by them."""

# T U height and width of a window, K classes

from __future__ import annotations

import numpy as np

from service.errors import BundleInvalid
from service.models.bundle import Bundle
from service.segmentation.inference.engine import Engine
from service.segmentation.inference.prediction import Pixels
from service.segmentation.inference.predictor import Predictor
from service.segmentation.inference.windows.tiling import Tiling
from service.segmentation.inference.windows.window_session import WindowSession
from service.segmentation.inference.windows.windowed_predictor import WindowedPredictor
from service.settings import Settings

SUM_ATOL = 1e-3
"""How far the probabilities of a pixel may be from 1 together."""


def by_its_rule(bundle: Bundle, engine: Engine, settings: Settings, mask_agreement: float) -> Predictor:
    """Who answers for a bundle.

    Args:
        bundle: Its files are as its manifest says.
        engine: Its graph of whole images, whose probe has passed. Where the rule is windows, it is let go.
        settings: Threads and device.
        mask_agreement: What the probe demands of that graph, 0..1.

    Raises:
        BundleInvalid: The window's graph is not what the manifest says, or of another network.
        Unavailable: The machine cannot run it.
    """
    manifest = bundle.manifest
    if manifest.tile is None:
        return engine
    tiling = Tiling(window=manifest.tile.window, stride=manifest.tile.stride, long_side=manifest.inference.long_side)
    graph = WindowSession(
        bundle.folder / manifest.tile.file,
        threads=settings.threads,
        # TensorRT would build its engine of the window anew at each start: its cache is the other graph's.
        device="cuda" if settings.device == "tensorrt" else settings.device,
        window=tiling.window,
        classes=len(manifest.classes),
    )
    _check(graph, engine, tiling, mask_agreement)
    return WindowedPredictor(graph=graph, tiling=tiling, classes=len(manifest.classes))


def _check(graph: WindowSession, engine: Engine, tiling: Tiling, mask_agreement: float) -> None:
    """The probe has no windows; but of an image of a window's size both graphs may see, and must say, the same."""
    image_TU3 = _scene(*tiling.window)
    probability_KTU = graph.probabilities(image_TU3[None])[0]
    apart = float(np.abs(probability_KTU.sum(axis=0) - 1).max())
    if not apart <= SUM_ATOL:
        raise BundleInvalid(
            f"The window's graph gives no probabilities: their sum is {apart:.2g} from 1. Export again."
        )
    if tiling.seen_size(*tiling.window) != tiling.window:
        return
    agreement = float(np.mean(probability_KTU.argmax(axis=0) == engine.run(image_TU3).mask_HW))
    if agreement < mask_agreement:
        raise BundleInvalid(
            f"The window's graph and that of whole images name the same class at {agreement:.4%} of a window's pixels, "
            f"and {mask_agreement:.4%} must be: they do not belong together, or this onnxruntime computes one of them "
            "wrongly. Export again here."
        )


def _scene(height: int, width: int) -> Pixels:
    """Waves of all colours, uint8 [H, W, 3]: few pixels lie between two classes."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / width * across + y / height * down) for across, down in ((9, 4), (-5, 11), (7, -8))]
    return np.stack([(127.5 + 127.5 * wave).astype(np.uint8) for wave in waves], axis=-1)
