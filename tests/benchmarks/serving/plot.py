"""The figures as an SVG: what clients wait for at which rate, and what is left of the rate under too much load."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from tests.benchmarks.serving.report import Report
from tests.benchmarks.serving.windows import CLOSED, OPEN

WIDTH, HEIGHT = 960, 405
TOP, BOTTOM = 60, 330
LEFT_PANEL, RIGHT_PANEL = (70, 510), (590, 930)
# Told apart with any kind of colour vision, on white and on black.
COLORS = {
    "ours": "#d55e00",
    "ours-auto": "#a66a00",
    "fastapi": "#0082c8",
    "litserve": "#009e73",
    "bentoml": "#cc79a7",
    "triton": "#8a8f98",
}
LATENCY_TICKS = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)
STYLE = """\
  <style>
    text { fill: #1c2536 } .small { font-size: 12px; fill: #55627a } .axis { stroke: #33415c; stroke-width: 1.2 }
    .grid { stroke: #d5dbe8; stroke-width: 1 } .limit { stroke: #33415c; stroke-width: 1.2; stroke-dasharray: 2 4 }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6ebf5 } .small { fill: #a3b0c9 } .axis, .limit { stroke: #9db0d6 } .grid { stroke: #333d52 }
    }
  </style>"""

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Axis:
    """From values to pixels, linear or by the logarithm."""

    low: float
    high: float
    first_px: float
    last_px: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Where a value stands; values beyond the ends stand at the ends."""
        scale: Callable[[float], float] = math.log10 if self.log else float
        low, high = scale(self.low), scale(self.high)
        share = (scale(min(max(value, self.low), self.high)) - low) / (high - low)
        return self.first_px + share * (self.last_px - self.first_px)


def svg(found: Report) -> str:
    """The picture."""
    label = "Masks a second and latency of each server, and masks a second under more load than it can bear"
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="system-ui, sans-serif" '
        f'font-size="14" role="img"\n     aria-label="{label}">'
    )
    parts = [head, STYLE, *_closed_panel(found), *_open_panel(found), *_legend(found), "</svg>"]
    return "\n".join(parts) + "\n"


def _closed_panel(found: Report) -> list[str]:
    """Left: rate and latency at 1, 8 and 32 clients."""
    limit = max(found["limit"][load.name]["infer"] for load in CLOSED[1:])
    loads = [side["loads"][load.name] for side in found["sides"].values() for load in CLOSED]
    times = [value for load in loads for value in (load["p50_ms"], load["p99_ms"]) if value > 0]
    low = max((tick for tick in LATENCY_TICKS if tick <= min(times, default=10)), default=LATENCY_TICKS[0])
    high = min((tick for tick in LATENCY_TICKS if tick >= max(times, default=100)), default=LATENCY_TICKS[-1])
    most = 1.1 * max(limit, *(load["masks_per_s"] for load in loads), 1.0)
    x, y = Axis(0, most, *LEFT_PANEL), Axis(low, max(high, 2 * low), BOTTOM, TOP, log=True)
    parts = [_text(LEFT_PANEL[0], 24, "1, 8 and 32 clients: latency (ms) at masks a second")]
    parts += [_text(LEFT_PANEL[0], 44, "solid: p50, dashed: p99; dotted: raw onnxruntime, inference alone", "small")]
    parts += _frame(LEFT_PANEL, [(x(tick), f"{tick:g}") for tick in _steps(most)])
    parts += _levels(LEFT_PANEL, [(y(tick), f"{tick}") for tick in LATENCY_TICKS if low <= tick <= high])
    parts.append(_line((x(limit), TOP), (x(limit), BOTTOM), "limit"))
    for name, side in found["sides"].items():
        for key, dashed in (("p99_ms", True), ("p50_ms", False)):
            values = [(side["loads"][load.name]["masks_per_s"], side["loads"][load.name][key]) for load in CLOSED]
            parts += _curve(name, [(x(rate), y(time)) for rate, time in values if time > 0], dashed=dashed)
    return parts


def _open_panel(found: Report) -> list[str]:
    """Right: what comes out of 0.5 to 5 times the capacity."""
    rates = {name: [side["loads"][load.name]["masks_per_s"] for load in OPEN] for name, side in found["sides"].items()}
    most = 1.1 * max((rate for side in rates.values() for rate in side), default=1.0) or 1.0
    gap = (RIGHT_PANEL[1] - RIGHT_PANEL[0]) / len(OPEN)
    places = [RIGHT_PANEL[0] + gap * (index + 0.5) for index in range(len(OPEN))]
    y = Axis(0, most, BOTTOM, TOP)
    parts = [_text(RIGHT_PANEL[0], 24, "Overload: masks a second at times its capacity")]
    parts += [_text(RIGHT_PANEL[0], 44, "to clients that have not given up", "small")]
    parts += _frame(RIGHT_PANEL, [(place, load.name) for place, load in zip(places, OPEN, strict=True)])
    parts += _levels(RIGHT_PANEL, [(y(tick), f"{tick:g}") for tick in _steps(most)])
    for name, side in rates.items():
        parts += _curve(name, [(place, y(rate)) for place, rate in zip(places, side, strict=True)], dashed=False)
    return parts


def _legend(found: Report) -> list[str]:
    parts, x = [], float(LEFT_PANEL[0])
    for name, side in found["sides"].items():
        parts.append(f'  <rect x="{x:.0f}" y="{BOTTOM + 50}" width="14" height="14" fill="{COLORS[name]}"/>')
        parts.append(_text(x + 20, BOTTOM + 62, side["title"]))
        x += 50 + 7.6 * len(side["title"])
    return parts


def _frame(panel: tuple[int, int], ticks: Sequence[tuple[float, str]]) -> list[str]:
    left, right = panel
    parts = [_line((left, BOTTOM), (right, BOTTOM), "axis"), _line((left, TOP), (left, BOTTOM), "axis")]
    return parts + [_text(place, BOTTOM + 20, label, "small", anchor="middle") for place, label in ticks]


def _levels(panel: tuple[int, int], ticks: Sequence[tuple[float, str]]) -> list[str]:
    parts = [_line((panel[0], place), (panel[1], place), "grid") for place, _ in ticks]
    return parts + [_text(panel[0] - 8, place + 4, label, "small", anchor="end") for place, label in ticks]


def _curve(name: str, points: Sequence[Point], *, dashed: bool) -> list[str]:
    color, width = COLORS[name], 3 if name == "ours" else 1.8
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    line = f'  <polyline points="{path}" fill="none" stroke="{color}" stroke-width="{width}"{dash}/>'
    fill = "none" if dashed else color
    dots = [f'  <circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{fill}" stroke="{color}"/>' for x, y in points]
    return [line, *dots]


def _steps(most: float) -> list[float]:
    """Round values from 0 on, four to eight of them."""
    step = 10 ** math.floor(math.log10(most))
    while most / step < 4:
        step /= 2
    return [step * index for index in range(int(most / step) + 1)]


def _line(begin: Point, end: Point, kind: str) -> str:
    return f'  <line x1="{begin[0]:.1f}" y1="{begin[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}" class="{kind}"/>'


def _text(x: float, y: float, words: str, kind: str = "", *, anchor: str = "start") -> str:
    of_kind = f' class="{kind}"' if kind else ""
    return f'  <text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{of_kind}>{escape(words)}</text>'
