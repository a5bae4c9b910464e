"""Charts as plain SVG that takes the page's colours, light or dark, and says in words what it shows."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from trainer.evaluation.calibration import Bin
from trainer.report.history import Points

WIDTH, HEIGHT = 520, 240
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 12, 30
POINTS = 300
"""Points of a drawn line; more cannot be told apart at this width."""
SMOOTH_PART = 30
"""A smoothed line averages over this part of its points."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart.

    Attributes:
        name: in the legend.
        points: in the order of the steps.
        smooth: draw the points pale and their running mean over them.
    """

    name: str
    points: Points
    smooth: bool = False


def line_chart(title: str, lines: Sequence[Line], *, floor: float | None = 0.0) -> Markup:
    """A chart of values over the steps; lines without points are left out. Empty when none is left.

    Args:
        title: what is shown, in words.
        lines: at most four.
        floor: a value that the axis reaches down to; None = the least value.
    """
    lines = [line for line in lines if line.points]
    if not lines:
        return Markup()
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points] + ([] if floor is None else [floor])
    ticks = _ticks(min(ys), max(ys))
    across = _scale(min(xs), max(xs), LEFT, WIDTH - RIGHT)
    up = _scale(ticks[0], ticks[-1], HEIGHT - BOTTOM, TOP)
    parts = [_grid(ticks, up), _steps(min(xs), max(xs), across)]
    parts += [_drawn(index, line, across, up) for index, line in enumerate(lines)]
    legend = Markup().join(
        Markup('<li><span class="key s{}"></span>{}</li>').format(index, line.name) for index, line in enumerate(lines)
    )
    ends = "; ".join(f"{line.name} from {line.points[0][1]:.3g} to {line.points[-1][1]:.3g}" for line in lines)
    figure = _svg(f"{title}. {ends}.", parts, WIDTH, HEIGHT)
    return Markup('<figure><figcaption>{}</figcaption>{}<ul class="legend">{}</ul></figure>').format(
        title, figure, legend
    )


def reliability_diagram(bins: Sequence[Bin]) -> Markup:
    """Accuracy over confidence: on the diagonal a model is as often right as it says."""
    side, edge = 300, 44
    across, up = _scale(0, 1, edge, side - 8), _scale(0, 1, side - edge, 8)
    ticks = [0, 0.25, 0.5, 0.75, 1]
    parts = [
        Markup('<line class="grid" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/>').format(edge, side - 8, up(t)) for t in ticks
    ]
    parts += [_text(edge - 6, up(t) + 4, f"{t:g}", "end") for t in ticks]
    parts += [_text(across(t), side - edge + 16, f"{t:g}", "middle") for t in ticks]
    most = max((each.pixels for each in bins), default=0)
    for index, each in enumerate(bins):
        if each.accuracy is None or each.confidence is None:
            continue
        left, right = across(index / len(bins)), across((index + 1) / len(bins))
        told = f"confidence {each.confidence:.2f}: {each.accuracy:.0%} right, {each.pixels} pixels"
        parts.append(
            Markup(
                '<rect class="bar" x="{}" y="{}" width="{}" height="{}" opacity="{}"><title>{}</title></rect>'
            ).format(
                *(
                    f"{value:.1f}"
                    for value in (left + 1, up(each.accuracy), right - left - 2, up(0) - up(each.accuracy))
                ),
                f"{0.35 + 0.65 * math.sqrt(each.pixels / most):.2f}",
                told,
            )
        )
    parts.append(
        Markup('<line class="ideal" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(across(0), up(0), across(1), up(1))
    )
    parts += [
        _text((edge + side) / 2, side - 10, "confidence", "middle"),
        Markup('<g transform="translate(12 {}) rotate(-90)">{}</g>').format(
            (side - edge) / 2, _text(0, 0, "right", "middle")
        ),
    ]
    told = "Part of the pixels that are right, over the confidence that the model states, in 15 bins."
    return _svg(told, parts, side, side)


def _svg(title: str, parts: Sequence[Markup], width: int, height: int) -> Markup:
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        width, height, title, Markup().join(parts)
    )


def _drawn(index: int, line: Line, across: Callable[[float], float], up: Callable[[float], float]) -> Markup:
    points = _thinned(line.points)
    if len(points) == 1:
        x, y = points[0]
        told = f"{line.name} {y:.4g} at step {x:g}"
        return Markup('<circle class="dot s{}" cx="{:.1f}" cy="{:.1f}" r="4"><title>{}</title></circle>').format(
            index, across(x), up(y), told
        )
    if not line.smooth:
        return _path(f"line s{index}", points, across, up)
    pale = _path(f"pale s{index}", points, across, up)
    return pale + _path(f"line s{index}", _running_mean(points), across, up)


def _path(name: str, points: Points, across: Callable[[float], float], up: Callable[[float], float]) -> Markup:
    places = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in points)
    return Markup('<polyline class="{}" points="{}"/>').format(name, places)


def _grid(ticks: list[float], up: Callable[[float], float]) -> Markup:
    line = Markup('<line class="grid" x1="{0}" x2="{1}" y1="{2:.1f}" y2="{2:.1f}"/>')
    return Markup().join(
        line.format(LEFT, WIDTH - RIGHT, up(tick)) + _text(LEFT - 8, up(tick) + 4, f"{tick:.6g}", "end")
        for tick in ticks
    )


def _steps(first: float, last: float, across: Callable[[float], float]) -> Markup:
    ticks = [tick for tick in _ticks(first, last) if first <= tick <= last]
    labels = [_text(across(tick), HEIGHT - 10, f"{tick:g}", "middle") for tick in ticks]
    return Markup().join([*labels, _text(LEFT - 8, HEIGHT - 10, "step", "end")])


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, anchor, text)


def _scale(first: float, last: float, low: float, high: float) -> Callable[[float], float]:
    span = last - first
    return lambda value: low + (high - low) * ((value - first) / span if span else 0.5)


def _ticks(low: float, high: float) -> list[float]:
    """Four to seven round numbers that enclose the range."""
    span = (high - low) or abs(high) or 1.0
    unit = 10.0 ** math.floor(math.log10(span / 4))
    step = next(unit * factor for factor in (1, 2, 5, 10) if span / (unit * factor) <= 5)
    first, last = math.floor(low / step), max(math.ceil(high / step), math.floor(low / step) + 1)
    return [round(number * step, 12) for number in range(first, last + 1)]


def _thinned(points: Points) -> Points:
    """Means of neighbouring points, so that no more than POINTS are left."""
    size = math.ceil(len(points) / POINTS)
    groups = [points[at : at + size] for at in range(0, len(points), size)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]


def _running_mean(points: Points) -> Points:
    reach = max(1, len(points) // SMOOTH_PART)
    near = [points[max(0, at - reach) : at + reach + 1] for at in range(len(points))]
    return [(x, sum(y for _, y in group) / len(group)) for (x, _), group in zip(points, near, strict=True)]
