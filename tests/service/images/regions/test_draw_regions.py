"""Regions drawn to class ids: pixels as pycocotools has them, order, and errors that name the region."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco

from service.classes.class_list import ClassList, Ids
from service.errors import MaskInvalid
from service.images.regions import draw_regions as limits
from service.images.regions.draw_regions import draw_regions
from service.images.regions.region_label import MAX_JSON_BYTES, is_region_label, read_region_label
from service.segmentation.output.polygons import outlines
from service.segmentation.output.run_lengths import find_runs
from tests.service.class_lists import TINY, list_of

SQUARE = [0, 0, 10, 0, 10, 10, 0, 10]
MASKS = arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20)), elements=st.integers(0, 4))


def draw(regions: Any, size: tuple[int, int] = (12, 11), classes: ClassList = TINY, **more: Any) -> Ids:
    label = read_region_label(json.dumps({"regions": regions, **more}).encode())
    return draw_regions(label, size, classes)


def region(segmentation: Any, name: str = "green", **more: Any) -> dict[str, Any]:
    return {"class": name, "segmentation": segmentation, **more}


def rle(counts: Any, size: Any = (11, 12)) -> dict[str, Any]:
    return region({"size": size, "counts": counts})


@given(MASKS)
@settings(deadline=None, max_examples=25)
def test_run_lengths_and_outlines_of_a_mask_give_the_mask(mask_HW: Ids) -> None:
    """Both forms in which the service itself answers."""
    height, width = mask_HW.shape
    found = find_runs(mask_HW).rle()
    answers = [region({"size": [height, width], "counts": text}, TINY.names[i]) for i, text in found.items()]
    np.testing.assert_array_equal(draw(answers, (width, height)), mask_HW)
    rings = outlines(mask_HW, tolerance_px=0, min_area_px=0)
    answers = [region([ring.tolist() for ring in each], TINY.names[i], even_odd=True) for i, each in rings.items()]
    np.testing.assert_array_equal(draw(answers, (width, height)), mask_HW)


# Of pycocotools, which is older than numpy 2.
@pytest.mark.filterwarnings("ignore:__array__ implementation")
@pytest.mark.parametrize("seed", range(20))
def test_polygons_have_the_pixels_of_pycocotools(seed: int) -> None:
    """Several overlap, and some reach outside the image."""
    rng = np.random.default_rng(seed)
    flat: Any = [[1.5, *rng.uniform(-4, 16, 2 * rng.integers(3, 8) - 1)] for _ in range(3)]
    expected = coco.decode(coco.merge(coco.frPyObjects(flat, 11, 12)))
    np.testing.assert_array_equal(draw([region(flat)], rest="red"), expected)


def test_uncompressed_run_lengths_go_column_by_column() -> None:
    np.testing.assert_array_equal(draw([rle([1, 2, 2, 1], [3, 2])], (2, 3), rest="red"), [[0, 0], [1, 0], [1, 1]])


@pytest.mark.parametrize(("pixel_centres", "pixels"), [(False, 100), (True, 121)])
def test_points_at_pixel_centres_include_their_outline(pixel_centres: bool, pixels: int) -> None:
    drawn = draw([region([SQUARE])], rest="red", pixel_centres=pixel_centres)
    assert (drawn == 1).sum() == pixels


def test_centres_reach_outside_the_image() -> None:
    drawn = draw([region([[-3, -3, 20, -3, 20, 3, -3, 3]])], rest="red", pixel_centres=True)
    assert (drawn[:4] == 1).all()
    assert not drawn[4:].any()
    assert not draw([region([[13, 13, 20, 13, 20, 20]])], rest="red", pixel_centres=True).any()


def test_later_regions_cover_earlier_ones_and_the_rest_has_no_label() -> None:
    points = [[5, 5], [12, 5], [12, 11], [5, 11]]
    drawn = draw([region([SQUARE]), region([points], "white")])
    assert drawn.dtype == np.uint8
    assert (drawn[:5, :10] == 1).all()
    assert (drawn[5:, 5:] == 4).all()
    assert (drawn[:5, 10:] == TINY.ignore_index).all()


def test_label_without_regions_is_all_of_one_class_or_none() -> None:
    assert (draw([], rest="blue") == 2).all()
    assert (draw([]) == TINY.ignore_index).all()


def test_ids_above_255_have_16_bits_and_names_are_compared_in_composed_form() -> None:
    classes = list_of([*map(str, range(300)), "b\u00e4r"], ignore_index=65_535)
    drawn = draw([region([SQUARE], "ba\u0308r")], classes=classes, rest="7")
    assert drawn.dtype == np.uint16
    assert np.unique(drawn).tolist() == [7, 300]


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        ([region([SQUARE]), rle([100, 30])], r"`regions\[1\]` \('green'\) has run lengths for 130 of 132 pixels"),
        ([rle([100, 40])], "run lengths for 140 of 132"),
        ([rle([133, -1])], "below 0"),
        ([rle([2**63, 2**63])], "not numbers of pixels"),
        ([rle([132], [12, 11])], "image of height 12 and width 11; the upright image has height 11 and width 12"),
        ([rle("T3X6\u00fc")], "damaged or incomplete"),
        ([rle("oooooooooooooooooo0")], "not numbers of pixels"),
        ([rle("T")], "damaged or incomplete"),
        ([region([[0, 0, 5, 5]])], "polygon of 4 numbers: three points are 6"),
        ([region([[0, 0, 5, 5, 7]])], "even number"),
        ([region([[0, 0, 5, 5, 99, 5]])], "far outside the upright image of 12x11"),
        ([region([[0, 0, 0.5, 0, 0.5, 0.9]])], "look like fractions; multiply them"),
        ([region([SQUARE], "Green")], r"`regions\[0\]` has the class 'Green'.*did you mean 'green'\?"),
        ([region([SQUARE], "weed")], "it has red, green, blue, black, white. PUT /v1/classes"),
        ([region([SQUARE]), region([])], r"`regions\[1\].segmentation`: List should have at least 1 item"),
        ([region([["a"]])], r"`regions\[0\].segmentation\[0\]\[0\]`: Input should be a valid number"),
        ([region([SQUARE], bbox=[1])], r"`regions\[0\].bbox`: Extra inputs are not permitted"),
        ([{"segmentation": [SQUARE]}], r"`regions\[0\].class`: Field required"),
    ],
)
def test_unusable_region_is_named_by_its_index(regions: list[Any], message: str) -> None:
    with pytest.raises(MaskInvalid, match=message):
        draw(regions)


@pytest.mark.parametrize(
    ("limit", "value", "message"),
    [
        ("MAX_POINTS", 7, "limit of 7 points in all"),
        ("MAX_OUTLINE_PX", 79, "limit of 79 pixels of outlines"),
        ("MAX_COVER", 1, "1 regions over each are the limit"),
    ],
)
def test_work_for_one_label_is_limited(limit: str, value: int, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (draw([region([SQUARE])] * 2) == 1).sum() == 100
    monkeypatch.setattr(limits, limit, value)
    with pytest.raises(MaskInvalid, match=rf"`regions\[1\]`.*{message}"):
        draw([region([SQUARE])] * 2)


def test_json_is_recognised_and_bad_json_explained() -> None:
    assert is_region_label(b'\xef\xbb\xbf \n{"regions": []}')
    assert not is_region_label(b"\x89PNG{")
    for data, message in (
        (b"{", "Invalid JSON"),
        (b"[]", "should be an object"),
        (b" " * (MAX_JSON_BYTES + 1), f"may have {MAX_JSON_BYTES}: send compressed run lengths, or a PNG"),
        (b'{"regions": [{"class": "red", "segmentation": [[1, 1, NaN]]}]}', "finite number"),
    ):
        with pytest.raises(MaskInvalid, match=message):
            read_region_label(data)
