"""Measure the cosine of near-duplicates for a model, on images of the pool and altered copies of them."""

# I images, D channels

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from service.curation.near_duplicates import Pixels, altered_copies, duplicate_threshold
from service.segmentation.inference.cancellation import CancelCheck
from service.segmentation.inference.predictor import Predictor

IMAGES = 32
MIN_IMAGES = 20
"""With fewer, there are too few pairs of different images."""


def measure_threshold(images: Iterable[Pixels], predictor: Predictor, is_cancelled: CancelCheck) -> float | None:
    """Least cosine of near-duplicates; None if there are fewer than `MIN_IMAGES`, or the model cannot tell them.

    Raises as `Predictor.run`.
    """
    originals, copies = [], []
    for image_HW3 in images:
        original_D = _embedding(predictor, image_HW3, is_cancelled)
        copies += [float(original_D @ _embedding(predictor, copy, is_cancelled)) for copy in altered_copies(image_HW3)]
        originals.append(original_D)
    if len(originals) < MIN_IMAGES:
        return None
    embeddings_ID = np.stack(originals)
    pairs = (embeddings_ID @ embeddings_ID.T)[np.triu_indices(len(originals), k=1)]
    return duplicate_threshold(np.array(copies), pairs)


def _embedding(predictor: Predictor, image_HW3: Pixels, is_cancelled: CancelCheck) -> npt.NDArray[np.float32]:
    embedding_D = predictor.run(image_HW3, None, is_cancelled).embedding_D
    assert embedding_D is not None  # noqa: S101 - of models with embeddings only
    return embedding_D.astype(np.float32)
