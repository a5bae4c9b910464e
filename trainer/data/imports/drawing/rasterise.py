"""Pixels of one region: polygons, rectangles, ellipses and bitmaps.

Two conventions exist for the same numbers, and the tool that wrote them decides which one is right:

    continuous      coordinates are distances from the picture's upper left corner; pixel (0, 0) covers 0..1. A polygon
                    0,0 10,0 10,10 0,10 is 100 pixels. COCO, CVAT, Label Studio, Darwin
    pixel centres   coordinates are those of pixels; the outline belongs to the region. The same polygon is 121 pixels.
                    labelme, OpenCV's findContours, supervision
"""

# H W pixels, N points, 2 = x and y

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from trainer.data.coco.coco_regions import region
from trainer.data.imports.source.annotated import Size

Points = Sequence[tuple[float, float]]
"""(x, y) in pixels of the upright image."""
Pixels = npt.NDArray[np.bool_]

FAR = 8
"""Points further away than this many times the image's longer side have another unit."""


class ShapeError(ValueError):
    """A shape that cannot be drawn; the message completes "the region ..."."""


@dataclass(frozen=True, slots=True)
class Polygon:
    """A polygon with holes.

    Attributes:
        points: at least three.
        holes: polygons that are cut out.
        pixel_centres: the convention; see the module.
    """

    points: Points
    holes: Sequence[Points] = ()
    pixel_centres: bool = False


@dataclass(frozen=True, slots=True)
class Rectangle:
    """Two opposite corners. Rotated ones are polygons: `rotated_rectangle`."""

    first: tuple[float, float]
    second: tuple[float, float]
    pixel_centres: bool = False


@dataclass(frozen=True, slots=True)
class Ellipse:
    """Centre and radii; `degrees` turn it clockwise."""

    center: tuple[float, float]
    radii: tuple[float, float]
    degrees: float = 0.0
    pixel_centres: bool = False


@dataclass(frozen=True, slots=True)
class Bitmap:
    """A mask, bool [H, W], at a place; parts outside the image are cut off."""

    mask_HW: Pixels
    left: int = 0
    top: int = 0


@dataclass(frozen=True, slots=True)
class Union:
    """Several shapes that are one region."""

    parts: Sequence["Shape"] = field(default_factory=tuple)


Shape = Polygon | Rectangle | Ellipse | Bitmap | Union


def rotated_rectangle(left: float, top: float, width: float, height: float, degrees: float) -> Polygon:
    """A rectangle turned clockwise around its upper left corner, as in Label Studio; continuous coordinates."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = ((0.0, 0.0), (width, 0.0), (width, height), (0.0, height))
    return Polygon([(left + x * cos - y * sin, top + x * sin + y * cos) for x, y in corners])


def shape_pixels(shape: Shape, size: Size) -> Pixels:
    """Pixels of a shape in an image of `size`, bool [H, W]; parts outside are cut off. Raises ShapeError."""
    match shape:
        case Union():
            mask_HW = np.zeros(size, dtype=np.bool_)
            for part in shape.parts:
                mask_HW |= shape_pixels(part, size)
            return mask_HW
        case Bitmap():
            return _pasted(shape, size)
        case Polygon():
            return _polygon(shape, size)
        case Rectangle():
            return _rectangle(shape, size)
        case Ellipse():
            return _ellipse(shape, size)


def is_outside(shape: Shape, size: Size) -> bool:
    """Whether a point of the shape is outside the image, so that a part is cut off."""
    height, width = size
    match shape:
        case Union():
            return any(is_outside(part, size) for part in shape.parts)
        case Bitmap():
            rows, columns = shape.mask_HW.shape
            return min(shape.left, shape.top) < 0 or shape.left + columns > width or shape.top + rows > height
        case Polygon():
            points = shape.points
        case Rectangle():
            points = (shape.first, shape.second)
        case Ellipse():
            (x, y), radius = shape.center, max(shape.radii)
            points = ((x - radius, y - radius), (x + radius, y + radius))
    return any(not (0 <= x <= width and 0 <= y <= height) for x, y in points)


def _checked(points: Points, size: Size) -> npt.NDArray[np.float64]:
    """The points, float64 [N, 2]. Raises ShapeError."""
    try:
        points_N2 = np.array(points, dtype=np.float64).reshape(-1, 2)
    except (ValueError, TypeError) as error:
        raise ShapeError("has points that are not pairs of numbers") from error
    if not np.isfinite(points_N2).all():
        raise ShapeError("has points that are not finite numbers")
    if len(points_N2) and np.abs(points_N2).max() > FAR * max(size):
        raise ShapeError(f"has points far outside the image, up to {np.abs(points_N2).max():.0f} pixels")
    return points_N2


def _polygon(polygon: Polygon, size: Size) -> Pixels:
    fill = _centre_polygon if polygon.pixel_centres else _continuous_polygon
    mask_HW = fill(_checked(polygon.points, size), size)
    for hole in polygon.holes:
        mask_HW &= ~fill(_checked(hole, size), size)
    return mask_HW


def _continuous_polygon(points_N2: npt.NDArray[np.float64], size: Size) -> Pixels:
    if len(points_N2) < 3:
        raise ShapeError(f"has {len(points_N2)} points; a polygon has three or more")
    return region([points_N2.ravel().tolist()], size)


def _centre_polygon(points_N2: npt.NDArray[np.float64], size: Size) -> Pixels:
    if len(points_N2) < 3:
        raise ShapeError(f"has {len(points_N2)} points; a polygon has three or more")
    canvas, draw = _canvas(size)
    draw.polygon([(x, y) for x, y in points_N2.tolist()], fill=1, outline=1)
    return np.array(canvas, dtype=np.bool_)


def _rectangle(rectangle: Rectangle, size: Size) -> Pixels:
    (x0, y0), (x1, y1) = _checked((rectangle.first, rectangle.second), size).tolist()
    left, right, top, bottom = min(x0, x1), max(x0, x1), min(y0, y1), max(y0, y1)
    if rectangle.pixel_centres:
        canvas, draw = _canvas(size)
        draw.rectangle((left, top, right, bottom), fill=1, outline=1)
        return np.array(canvas, dtype=np.bool_)
    x_W, y_H = np.arange(size[1]) + 0.5, np.arange(size[0]) + 0.5
    inside_HW: Pixels = ((y_H >= top) & (y_H < bottom))[:, None] & ((x_W >= left) & (x_W < right))
    return inside_HW


def _ellipse(ellipse: Ellipse, size: Size) -> Pixels:
    ((x, y),) = _checked((ellipse.center,), size).tolist()
    rx, ry = (abs(radius) for radius in _checked((ellipse.radii,), size).tolist()[0])
    if ellipse.pixel_centres and not ellipse.degrees:
        canvas, draw = _canvas(size)
        draw.ellipse((x - rx, y - ry, x + rx, y + ry), fill=1, outline=1)
        return np.array(canvas, dtype=np.bool_)
    if not rx or not ry:
        raise ShapeError("has a radius of 0")
    offset = 0.0 if ellipse.pixel_centres else 0.5
    x_W, y_H1 = np.arange(size[1]) + offset - x, (np.arange(size[0]) + offset - y)[:, None]
    cos, sin = math.cos(math.radians(ellipse.degrees)), math.sin(math.radians(ellipse.degrees))
    inside_HW: Pixels = ((x_W * cos + y_H1 * sin) / rx) ** 2 + ((y_H1 * cos - x_W * sin) / ry) ** 2 <= 1
    return inside_HW


def _pasted(bitmap: Bitmap, size: Size) -> Pixels:
    mask_HW = np.zeros(size, dtype=np.bool_)
    left, top = max(bitmap.left, 0), max(bitmap.top, 0)
    part_HW = bitmap.mask_HW[top - bitmap.top :, left - bitmap.left :]
    part_HW = part_HW[: max(size[0] - top, 0), : max(size[1] - left, 0)]
    mask_HW[top : top + part_HW.shape[0], left : left + part_HW.shape[1]] = part_HW
    return mask_HW


def _canvas(size: Size) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    canvas = Image.new("1", size[::-1])
    return canvas, ImageDraw.Draw(canvas)
