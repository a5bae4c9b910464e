"""Pixels of shapes, in both conventions of coordinates."""

import numpy as np
import pytest

from trainer.data.imports.drawing.drawn_regions import DrawnRegions, Region
from trainer.data.imports.drawing.rasterise import (
    Bitmap,
    Ellipse,
    Polygon,
    Rectangle,
    Shape,
    ShapeError,
    Union,
    is_outside,
    rotated_rectangle,
    shape_pixels,
)
from trainer.data.imports.drawing.run_lengths import coco_run_lengths, row_run_lengths
from trainer.data.imports.source.annotated import REST
from trainer.data.imports.source.loss_report import Losses

SIZE = (30, 40)
SQUARE = [(10, 5), (20, 5), (20, 15), (10, 15)]
INNER = [(12, 7), (15, 7), (15, 10), (12, 10)]


def box(top: int, bottom: int, left: int, right: int) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    mask_HW = np.zeros(SIZE, dtype=np.bool_)
    mask_HW[top:bottom, left:right] = True
    return mask_HW


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (Polygon(SQUARE), box(5, 15, 10, 20)),
        (Polygon(SQUARE, pixel_centres=True), box(5, 16, 10, 21)),
        (Polygon(SQUARE, [INNER]), box(5, 15, 10, 20) & ~box(7, 10, 12, 15)),
        (Polygon(SQUARE, [INNER], pixel_centres=True), box(5, 16, 10, 21) & ~box(7, 11, 12, 16)),
        (Rectangle((20, 15), (10, 5)), box(5, 15, 10, 20)),
        (Rectangle((10, 5), (20, 15), pixel_centres=True), box(5, 16, 10, 21)),
        (Rectangle((10.4, 5), (20.6, 15)), box(5, 15, 10, 21)),
        (rotated_rectangle(20, 5, 10, 10, 90), box(5, 15, 10, 20)),
        (rotated_rectangle(10, 5, 10, 10, 0), box(5, 15, 10, 20)),
        (Bitmap(np.ones((10, 10), np.bool_), 10, 5), box(5, 15, 10, 20)),
        (Bitmap(np.ones((10, 10), np.bool_), -5, 25), box(25, 30, 0, 5)),
        (Bitmap(np.ones((10, 10), np.bool_), 100, 5), box(0, 0, 0, 0)),
        (Union([Polygon(SQUARE), Rectangle((0, 0), (2, 2))]), box(5, 15, 10, 20) | box(0, 2, 0, 2)),
        (Polygon([(-10, 5), (20, 5), (20, 45), (-10, 45)]), box(5, 30, 0, 20)),
    ],
)
def test_pixels_of_a_shape(shape: Shape, expected: np.ndarray[tuple[int, int], np.dtype[np.bool_]]) -> None:
    np.testing.assert_array_equal(shape_pixels(shape, SIZE), expected)


def test_ellipses_have_their_area_and_turn_clockwise() -> None:
    area = np.pi * 12 * 5
    for degrees in (0, 30, 90):
        assert shape_pixels(Ellipse((20, 15), (12, 5), degrees), SIZE).sum() == pytest.approx(area, rel=0.03)
    rows, columns = np.nonzero(shape_pixels(Ellipse((20, 15), (12, 3), 30), SIZE))
    # With y down, the right end of a shape turned clockwise is lower.
    assert np.polyfit(columns, rows, 1)[0] == pytest.approx(np.tan(np.radians(30)), abs=0.05)
    circle_HW = shape_pixels(Ellipse((20, 15), (4, 4), pixel_centres=True), SIZE)
    assert circle_HW.any(axis=0).sum() == 9
    assert circle_HW[15, 16:25].all()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (Polygon([(0, 0), (1, 1)]), "has 2 points; a polygon has three or more"),
        (Polygon([(0, 0), (1, 1)], pixel_centres=True), "has 2 points"),
        (Polygon([(0, 0), (float("nan"), 1), (2, 2)]), "not finite"),
        (Polygon([(0, 0), (1e9, 1), (2, 2)]), "far outside the image, up to 1000000000 pixels"),
        (Polygon([(0, 0), ("x", 1), (2, 2)]), "not pairs of numbers"),  # type: ignore[list-item]
        (Ellipse((5, 5), (0, 2)), "radius of 0"),
    ],
)
def test_shapes_that_cannot_be_drawn(shape: Shape, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        shape_pixels(shape, SIZE)


def test_run_lengths_in_each_form() -> None:
    mask_HW = box(5, 15, 10, 20)
    np.testing.assert_array_equal(shape_pixels(row_run_lengths([0, 100], 10, 5, 10, 10), SIZE), mask_HW)
    runs = [305, *[10, 20] * 9, 10, 615]
    listed = coco_run_lengths({"size": [30, 40], "counts": runs}, SIZE)
    np.testing.assert_array_equal(shape_pixels(listed, SIZE), mask_HW)
    with pytest.raises(ShapeError, match="has run lengths for 1199 of 1200 pixels"):
        coco_run_lengths({"size": [30, 40], "counts": [*runs[:-1], 614]}, SIZE)
    with pytest.raises(ShapeError, match="has run lengths for 99 of 100 pixels"):
        row_run_lengths([0, 99], 10, 5, 10, 10)
    with pytest.raises(ShapeError, match="not numbers of pixels"):
        row_run_lengths([-1, 101], 10, 5, 10, 10)


def test_later_regions_win_and_losses_are_reported() -> None:
    losses = Losses()
    regions = [
        Region(Polygon(SQUARE), 0, "leaf 1"),
        Region(Polygon(INNER), 1, "stem 1"),
        Region(Polygon(INNER), 1, "stem 2"),
        Region(Polygon([(36, 0), (44, 0), (44, 8)]), 0, "leaf 2"),
        Region(Polygon([(1, 1), (2, 2)]), 0, "leaf 3"),
        Region(Polygon([(1, 1), (1, 2), (1, 3)]), 0, "leaf 4"),
    ]
    ids_HW = DrawnRegions("a.png", regions).draw(SIZE, losses)
    assert [int((ids_HW == index).sum()) for index in (0, 1)] == [91 + int((ids_HW[:5] == 0).sum()), 9]
    assert (ids_HW[20:] == REST).all()
    found = {loss.kind: loss.examples for loss in losses.groups()}
    assert found == {
        "overlap": ["a.png: stem 1 (9 pixels)"],
        "points outside": ["a.png: leaf 2"],
        "unusable region": ["a.png: leaf 3 has 2 points; a polygon has three or more"],
        "empty region": ["a.png: leaf 4"],
    }


def test_outside_of_each_shape() -> None:
    inside = (Rectangle((0, 0), (40, 30)), Ellipse((5, 5), (5, 5)), Bitmap(np.ones((30, 40), np.bool_)))
    assert not any(is_outside(shape, SIZE) for shape in inside)
    outside = (
        Rectangle((-1, 0), (4, 3)),
        Ellipse((5, 5), (6, 5)),
        Bitmap(np.ones((30, 40), np.bool_), 1),
        Union(inside),
    )
    assert [is_outside(shape, SIZE) for shape in outside] == [True, True, True, False]
