"""Analyse an image outside a request, for background work: its mask, how certain the model is, and its embedding."""

# H W pixels, D channels

from __future__ import annotations

from dataclasses import dataclass

from service.curation.uncertainty import uncertainty
from service.segmentation.decode import EncodedImage, Limits
from service.segmentation.formats.rgb import ValueRange
from service.segmentation.inference.cancellation import CancelCheck, never_cancelled
from service.segmentation.inference.predictor import Embedding, Mask, Predictor
from service.segmentation.output.description import mean_confidence


@dataclass(frozen=True, kw_only=True, slots=True)
class Analysis:
    """What a model says about an image."""

    mask_HW: Mask
    """Class ids, of the upright image."""
    mean_confidence: float
    """Mean over all pixels, 0..1."""
    uncertainty: float
    """Of `curation.uncertainty`, 0..1."""
    embedding_D: Embedding | None
    """Features of the image, of length 1; None if the model has no embeddings."""


def analyse(
    data: bytes,
    predictor: Predictor,
    limits: Limits,
    value_range: ValueRange | None = None,
    *,
    threads: int | None = None,
    is_cancelled: CancelCheck = never_cancelled,
) -> Analysis:
    """Decode an encoded image, run it through a model and summarise the result.

    It waits for no other request and is not counted in the limits of memory: analyse one image at a time.

    Args:
        data: The encoded image.
        predictor: The model's.
        limits: Largest image.
        value_range: The model's, for images with more than 8 bits.
        threads: A result of `predictor.threads_for`; None: the most.
        is_cancelled: Called before and during inference.

    Raises:
        ImageTooLarge, ImageUnsupported, ImageUnreadable: See `decode`.
        ImageTooLarge, OutOfMemory, Unavailable, InferenceCancelled: See `Predictor.run`.
    """
    image = EncodedImage(data, limits, value_range).decode()
    prediction = predictor.run(image.image_HW3, threads, is_cancelled)
    return Analysis(
        mask_HW=prediction.mask_HW,
        mean_confidence=mean_confidence(prediction),
        uncertainty=uncertainty(prediction.mask_HW, prediction.confidence_HW),
        embedding_D=prediction.embedding_D,
    )
