"""Build the predictor of a bundle: the graph of whole images, or sliding windows if its manifest says so."""

# T U height and width of a window, K classes

from __future__ import annotations

import numpy as np

from service.errors import BundleInvalid
from service.models.bundle import Bundle
from service.segmentation.inference.engine import Engine
from service.segmentation.inference.predictor import Pixels, Predictor
from service.segmentation.inference.probe import check_cosine
from service.segmentation.inference.windows.tiling import Tiling
from service.segmentation.inference.windows.window_session import WindowSession
from service.segmentation.inference.windows.windowed_predictor import WindowedPredictor
from service.settings import Settings

SUM_ATOL = 1e-3
"""Largest allowed difference between 1 and the sum of a pixel's probabilities."""


def make_predictor(
    bundle: Bundle,
    engine: Engine,
    settings: Settings,
    mask_agreement: float,
    min_embedding_cosine: float | None = None,
) -> Predictor:
    """Return `engine`, or a predictor with sliding windows if the manifest specifies one.

    The bundle's checksums were verified, and its `engine` of whole images passed its probe. `mask_agreement` is the
    least share of equal pixels in the masks of both graphs, 0..1, and `min_embedding_cosine` the least cosine of their
    embeddings (None: there are none).

    Raises BundleInvalid if the window's graph contradicts the manifest or the other graph, or Unavailable if the
    machine cannot run it.
    """
    manifest = bundle.manifest
    if manifest.tile is None:
        return engine
    tiling = Tiling(window=manifest.tile.window, stride=manifest.tile.stride, long_side=manifest.inference.long_side)
    graph = WindowSession(
        bundle.folder / manifest.tile.file,
        threads=settings.threads,
        # TensorRT's engine cache belongs to the graph of whole images: it would build this engine at every start.
        device="cuda" if settings.device == "tensorrt" else settings.device,
        window=tiling.window,
        classes=len(manifest.classes),
        embedding=manifest.embedding_dimensions,
    )
    _check(graph, engine, tiling, mask_agreement, min_embedding_cosine)
    return WindowedPredictor(graph=graph, tiling=tiling, classes=len(manifest.classes))


def _check(
    graph: WindowSession, engine: Engine, tiling: Tiling, mask_agreement: float, min_embedding_cosine: float | None
) -> None:
    """Compare both graphs on an image of the window's size, as the probe contains none."""
    image_TU3 = _test_image(*tiling.window)
    outputs = graph.run(image_TU3[None])
    probability_KTU = outputs.probability_NKTU[0]
    deviation = float(np.abs(probability_KTU.sum(axis=0) - 1).max())
    # Negated, so that NaN fails.
    if not deviation <= SUM_ATOL:
        raise BundleInvalid(
            f"The window's graph does not return probabilities: their sum differs from 1 by {deviation:.2g}. Export "
            "again."
        )
    if tiling.scaled_size(*tiling.window) != tiling.window:
        return
    whole = engine.run(image_TU3)
    agreement = float(np.mean(probability_KTU.argmax(axis=0) == whole.mask_HW))
    if agreement < mask_agreement:
        raise BundleInvalid(
            f"The window's graph and the graph of whole images agree on {agreement:.4%} of the pixels of a window; at "
            f"least {mask_agreement:.4%} must. They are not of the same model, or this onnxruntime computes one of "
            "them differently: export again here."
        )
    if min_embedding_cosine is not None and outputs.embedding_ND is not None:
        check_cosine(whole.embedding_D, outputs.embedding_ND[0], min_embedding_cosine, "a window")


def _test_image(height: int, width: int) -> Pixels:
    """Smooth waves of all colours, uint8 [H, W, 3], so that few pixels are close to two classes."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / width * across + y / height * down) for across, down in ((9, 4), (-5, 11), (7, -8))]
    return np.stack([(127.5 + 127.5 * wave).astype(np.uint8) for wave in waves], axis=-1)
