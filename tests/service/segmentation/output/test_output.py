"""Outputs: PNG and RLE round trips, descriptions, and overlays."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools import mask as coco

from service.errors import ClassUnknown, ImageTooLarge
from service.segmentation.inference.predictor import Mask, Prediction
from service.segmentation.output.class_table import ClassTable
from service.segmentation.output.description import OutputOptions, describe
from service.segmentation.output.overlay import overlay_jpeg
from service.segmentation.output.png import confidence_png, keep_classes, mask_png
from service.segmentation.output.run_lengths import find_runs
from tests.service.conftest import read

SHAPES = st.tuples(st.integers(1, 20), st.integers(1, 20))


def class_table(count: int) -> ClassTable:
    return ClassTable(
        names=tuple(f"c{i}" for i in range(count)),
        colors=tuple((i % 256, i // 256, 7) for i in range(count)),
        ignore_index=65_535,
    )


@given(arrays(np.uint8, SHAPES))
@settings(deadline=None)
def test_mask_png_round_trip(mask: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
    np.testing.assert_array_equal(read(mask_png(mask, class_table(256))), mask)


@given(arrays(np.uint16, SHAPES))
@settings(deadline=None)
def test_16_bit_mask_png_round_trip(mask: np.ndarray[Any, np.dtype[np.uint16]]) -> None:
    data = mask_png(mask, class_table(300))
    np.testing.assert_array_equal(read(data), mask)
    assert Image.open(io.BytesIO(data)).mode == "I;16"


def test_palette_has_the_class_colours() -> None:
    image = Image.open(io.BytesIO(mask_png(np.array([[0, 1, 2]], np.uint8), class_table(3))))
    assert np.array(image.convert("RGB"))[0].tolist() == [[0, 0, 7], [1, 0, 7], [2, 0, 7]]


# pycocotools 2.0.11 does not know numpy 2's `copy` argument yet; only its decoder warns.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@given(arrays(np.uint8, SHAPES, elements=st.integers(0, 3)), st.sampled_from([np.uint8, np.uint16]))
@settings(deadline=None)
def test_rle_matches_pycocotools_and_decodes_to_each_region(
    mask: np.ndarray[Any, np.dtype[np.uint8]], kind: type
) -> None:
    encoded = find_runs(mask.astype(kind)).rle()
    assert sorted(encoded) == np.unique(mask).tolist()
    for class_id, counts in encoded.items():
        expected = coco.encode(np.asfortranarray(mask == class_id, dtype=np.uint8))
        assert counts.encode() == expected["counts"]
        np.testing.assert_array_equal(coco.decode({"size": list(mask.shape), "counts": counts}), mask == class_id)


@given(arrays(np.uint8, SHAPES, elements=st.integers(0, 3)), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_description_has_pixels_and_mean_confidence_of_each_class(
    mask: np.ndarray[Any, np.dtype[np.uint8]], seed: int
) -> None:
    confidence = np.random.default_rng(seed).integers(0, 256, mask.shape, dtype=np.uint8)
    answer = describe(Prediction(mask, confidence), class_table(4), model="v1", options=OutputOptions())
    for entry in answer.classes:
        region = mask == entry.id
        assert entry.pixels == region.sum()
        assert entry.confidence == pytest.approx(confidence[region].mean() / 255, abs=1e-4)
    assert [entry.id for entry in answer.classes] == np.unique(mask).tolist()
    assert answer.confidence == pytest.approx(confidence.mean() / 255, abs=1e-4)


def test_description_of_a_hand_made_mask() -> None:
    mask = np.array([[0, 0, 2, 2]], np.uint8)
    confidence = np.array([[255, 255, 0, 51]], np.uint8)
    answer = describe(Prediction(mask, confidence), class_table(3), model="v1", options=OutputOptions())
    assert [(c.id, c.pixels, c.fraction, c.confidence) for c in answer.classes] == [(0, 2, 0.5, 1.0), (2, 2, 0.5, 0.1)]
    assert answer.confidence == 0.55
    assert (answer.width, answer.height, answer.model) == (4, 1, "v1")
    # No field that was not requested.
    assert set(json.loads(answer.to_json())) == {"model", "width", "height", "orientation", "confidence", "classes"}


def test_all_optional_outputs_of_a_hand_made_mask() -> None:
    mask = np.zeros((8, 8), np.uint8)
    mask[2:6, 2:6] = 2
    confidence = np.arange(64, dtype=np.uint8).reshape(8, 8)
    details = OutputOptions(classes=frozenset({2, 1}), masks="png", polygons=True, confidence=True)
    answer = describe(Prediction(mask, confidence), class_table(3), model="v1", options=details)
    (entry,) = answer.classes
    assert (entry.id, entry.pixels, entry.rle) == (2, 16, None)
    assert entry.polygons is not None
    (ring,) = entry.polygons
    assert sorted(ring) == [[2, 2], [2, 6], [6, 2], [6, 6]]
    assert answer.confidence_png is not None
    assert answer.mask_png is not None
    np.testing.assert_array_equal(read(base64.b64decode(answer.confidence_png)), confidence)
    # The ignore value of this class table needs 16 bits.
    np.testing.assert_array_equal(read(base64.b64decode(answer.mask_png)), np.where(mask == 2, 2, 65_535))


def test_confidence_png_is_grey() -> None:
    confidence = np.random.default_rng(0).integers(0, 256, (9, 7), dtype=np.uint8)
    assert Image.open(io.BytesIO(confidence_png(confidence))).mode == "L"
    np.testing.assert_array_equal(read(confidence_png(confidence)), confidence)


def test_keep_classes_sets_other_pixels_to_the_ignore_index() -> None:
    mask = np.array([[0, 1, 2]], np.uint8)
    some = ClassTable(("a", "b", "c"), ((1, 1, 1),) * 3, 255)
    assert keep_classes(mask, None, some) is mask
    assert keep_classes(mask, frozenset({1}), some).tolist() == [[255, 1, 255]]
    assert keep_classes(mask, frozenset({1}), some).dtype == np.uint8
    assert keep_classes(mask.astype(np.uint16), frozenset({0, 2}), some).tolist() == [[0, 255, 2]]


def test_classes_are_selected_by_name_or_id() -> None:
    some = ClassTable(("road", "car, parked", "2", "tram"), ((1, 1, 1),) * 4, 255)
    assert some.ids(["road"]) == {0}
    assert some.ids(["road, tram"]) == {0, 3}
    assert some.ids(["0", "3"]) == {0, 3}
    # A whole name goes before a list of names, and a name before an id.
    assert some.ids(["car, parked"]) == {1}
    assert some.ids(["2"]) == {2}
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    for name, text in ((composed, decomposed), (decomposed, composed)):
        assert ClassTable((name, "b"), ((1, 1, 1),) * 2, 255).ids([text]) == {0}
    for unknown in (["bicycle"], ["road,4"], [""], ["-1"], []):
        with pytest.raises(ClassUnknown, match="0 road, 1 car, parked, 2 2, 3 tram"):
            some.ids(unknown)


def test_overlay_tints_regions_and_draws_borders() -> None:
    image = np.full((32, 32, 3), 100, np.uint8)
    mask = np.zeros((32, 32), np.uint8)
    mask[:, 16:] = 1
    colors = ClassTable(("a", "b"), ((200, 0, 0), (0, 0, 200)), 255)
    overlay = read(overlay_jpeg(image, mask, colors, legend=False)).astype(int)
    assert overlay.shape == (32, 32, 3)
    np.testing.assert_allclose(overlay[16, 4], [150, 50, 50], atol=12)
    np.testing.assert_allclose(overlay[16, 28], [50, 50, 150], atol=12)
    assert overlay[16, 15].min() > 180


def test_overlay_does_not_tint_unselected_classes() -> None:
    image = np.full((32, 32, 3), 100, np.uint8)
    mask = np.zeros((32, 32), np.uint8)
    mask[:, 16:] = 1
    masks: list[Mask] = [mask, mask.astype(np.uint16)]
    for each in masks:
        colors = ClassTable(("a", "b"), ((200, 0, 0), (0, 0, 200)), 255)
        overlay = read(overlay_jpeg(image, each, colors, classes=frozenset({0}), legend=False)).astype(int)
        np.testing.assert_allclose(overlay[16, 4], [150, 50, 50], atol=12)
        np.testing.assert_allclose(overlay[16, 28], [100, 100, 100], atol=12)


@pytest.mark.parametrize("size", [(1, 1), (40, 30), (640, 480), (30, 700), (3000, 40)])
def test_legend_is_drawn_below_the_picture(size: tuple[int, int]) -> None:
    width, height = size
    rng = np.random.default_rng(0)
    image = np.full((height, width, 3), 100, np.uint8)
    mask = rng.integers(0, 3, (height, width), dtype=np.uint8)
    colors = ClassTable(("a", "a very long name of a class indeed, which is cut", "c"), ((200, 0, 0),) * 3, 255)
    plain, page = (read(overlay_jpeg(image, mask, colors, legend=legend)).astype(int) for legend in (False, True))
    assert page.shape[1] >= width
    # At least the height of one line of text.
    assert page.shape[0] >= height + 12
    # The picture is unchanged, except for JPEG blocks at its lower and right edges.
    assert np.abs(page[:height, :width] - plain)[: height // 16 * 16, : width // 16 * 16].max(initial=0) < 40
    # Dark text on white, and a square with the colour of the class.
    below = page[height + 6 :]
    assert below.max() > 240
    assert (np.abs(below - [200, 0, 0]).max(axis=-1) < 40).any()
    assert (below.max(axis=-1) < 110).any()


def test_legend_of_very_many_classes_stays_small() -> None:
    mask = np.arange(60_000, dtype=np.uint16).reshape(200, 300)
    many = ClassTable(tuple("x" * 500 for _ in range(60_000)), ((9, 9, 9),) * 60_000, 65_535)
    page = read(overlay_jpeg(np.zeros((200, 300, 3), np.uint8), mask, many))
    assert page.shape[0] < 200 + 42 * 18 + 12
    assert page.shape[1] < 600


def test_overlay_without_classes_has_no_legend() -> None:
    image, mask = np.zeros((20, 20, 3), np.uint8), np.zeros((20, 20), np.uint8)
    assert read(overlay_jpeg(image, mask, class_table(3), classes=frozenset({2}))).shape == (20, 20, 3)


def test_overlay_larger_than_jpeg_allows_is_rejected() -> None:
    image, mask = np.zeros((1, 65_501, 3), np.uint8), np.zeros((1, 65_501), np.uint8)
    with pytest.raises(ImageTooLarge, match="image/png"):
        overlay_jpeg(image, mask, class_table(1))
    # The maximum height leaves no room for a legend.
    tall = read(overlay_jpeg(image[:, :65_500].transpose(1, 0, 2).copy(), mask[:, :65_500].T.copy(), class_table(1)))
    assert tall.shape == (65_500, 1, 3)
