"""Analysis of one image for background work, with a real bundle."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.curation.uncertainty import uncertainty
from service.errors import ImageTooLarge, ImageUnsupported
from service.models.bundle import read_bundle
from service.models.loading import load_model
from service.segmentation.analysis import analyse
from service.segmentation.decode import Limits
from service.segmentation.inference.cancellation import InferenceCancelled
from service.settings import Settings
from tests.service.tiny_bundle import COLORS, mean_color, nearest, picture, write_bundle

LIMITS = Limits(max_bytes=10**6, max_pixels=10**6)


def encoded(image_HW3: np.ndarray) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(image_HW3).save(sink, "PNG")
    return sink.getvalue()


@pytest.mark.parametrize("embedding", [True, False])
def test_image_gives_mask_confidence_uncertainty_and_embedding(embedding: bool, tmp_path: Path) -> None:
    loaded = load_model(
        read_bundle(write_bundle(tmp_path / "bundle", embedding=embedding)), Settings(inference_threads=1)
    )
    image_HW3 = picture()
    prediction, found = loaded.engine.run(image_HW3), analyse(encoded(image_HW3), loaded.engine, LIMITS)
    np.testing.assert_array_equal(found.mask_HW, nearest(image_HW3, COLORS))
    assert found.mean_confidence == pytest.approx(prediction.confidence_HW.mean() / 255, abs=1e-3)
    assert found.uncertainty == uncertainty(prediction.mask_HW, prediction.confidence_HW)
    if embedding:
        assert found.embedding_D is not None
        np.testing.assert_allclose(found.embedding_D, mean_color(image_HW3), atol=1e-3)
    else:
        assert found.embedding_D is None


def test_faults_of_the_image_and_cancellation_are_raised(tmp_path: Path) -> None:
    predictor = load_model(read_bundle(write_bundle(tmp_path / "bundle")), Settings(inference_threads=1)).engine
    with pytest.raises(ImageUnsupported):
        analyse(b"no image", predictor, LIMITS)
    with pytest.raises(ImageTooLarge):
        analyse(encoded(picture()), predictor, Limits(max_bytes=10**6, max_pixels=100))
    with pytest.raises(InferenceCancelled):
        analyse(encoded(picture()), predictor, LIMITS, is_cancelled=lambda: True)
