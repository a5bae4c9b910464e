"""What leaves can be read back: PNG and RLE round trips."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools import mask as coco

from service.segmentation.describe import describe, encode_rle
from service.segmentation.engine import Prediction
from service.segmentation.legend import Legend
from service.segmentation.render import mask_png, overlay_jpeg
from tests.service.conftest import read

SHAPES = st.tuples(st.integers(1, 20), st.integers(1, 20))


def legend(count: int) -> Legend:
    return Legend(
        names=tuple(f"c{i}" for i in range(count)),
        colors=tuple((i % 256, i // 256, 7) for i in range(count)),
        ignore_index=65_535,
    )


@given(arrays(np.uint8, SHAPES))
@settings(deadline=None)
def test_png_gives_the_ids_back(mask: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
    np.testing.assert_array_equal(read(mask_png(mask, legend(256))), mask)


@given(arrays(np.uint16, SHAPES))
@settings(deadline=None)
def test_png_of_many_classes_gives_the_ids_back(mask: np.ndarray[Any, np.dtype[np.uint16]]) -> None:
    data = mask_png(mask, legend(300))
    np.testing.assert_array_equal(read(data), mask)
    assert Image.open(io.BytesIO(data)).mode == "I;16"


def test_the_palette_is_the_legend() -> None:
    image = Image.open(io.BytesIO(mask_png(np.array([[0, 1, 2]], np.uint8), legend(3))))
    assert np.array(image.convert("RGB"))[0].tolist() == [[0, 0, 7], [1, 0, 7], [2, 0, 7]]


# pycocotools 2.0.11 does not know numpy 2's `copy` argument yet; only its decoder warns.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@given(arrays(np.bool_, SHAPES))
@settings(deadline=None)
def test_rle_gives_the_region_back(region: np.ndarray[Any, np.dtype[np.bool_]]) -> None:
    rle = encode_rle(region)
    np.testing.assert_array_equal(coco.decode({"size": list(rle.size), "counts": rle.counts}), region)


def test_description_by_hand() -> None:
    mask = np.array([[0, 0, 2, 2]], np.uint8)
    confidence = np.array([[255, 255, 0, 51]], np.uint8)
    answer = describe(Prediction(mask, confidence), legend(3), model="v1")
    assert [(c.id, c.pixels, c.fraction, c.confidence) for c in answer.classes] == [(0, 2, 0.5, 1.0), (2, 2, 0.5, 0.1)]
    assert answer.confidence == 0.55
    assert (answer.width, answer.height, answer.model) == (4, 1, "v1")


def test_overlay_tints_and_draws_borders() -> None:
    image = np.full((32, 32, 3), 100, np.uint8)
    mask = np.zeros((32, 32), np.uint8)
    mask[:, 16:] = 1
    colors = Legend(("a", "b"), ((200, 0, 0), (0, 0, 200)), 255)
    found = read(overlay_jpeg(image, mask, colors)).astype(int)
    np.testing.assert_allclose(found[16, 4], [150, 50, 50], atol=12)
    np.testing.assert_allclose(found[16, 28], [50, 50, 150], atol=12)
    assert found[16, 15].min() > 180
