"""Charts of the report: matplotlib figures as inline SVG with the page's colours and fonts."""

# N points

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape

from trainer.evaluation.calibration import Bin
from trainer.report.history import Points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SOFT, RULE, INK = "#57606e", "#dde1e7", "#14181f"
SERIES = (("#1d5fd1", "-"), ("#c2410c", "--"), ("#0f766e", ":"))
VARIABLES = {SOFT: "soft", RULE: "rule", INK: "ink"} | {color: f"s{i}" for i, (color, _) in enumerate(SERIES)}
"""CSS variables that replace the colours in the SVG, so that charts follow the page's light or dark scheme."""

MAX_POINTS = 300
"""Points per line; more cannot be distinguished."""
SMOOTHING = 30
"""The running mean covers 1/SMOOTHING of the points on either side."""

Values = npt.NDArray[np.float64]


def line_chart(title: str, series: Mapping[str, Points], *, smooth: bool = False) -> Markup:
    """Line chart of at most three series over the steps, as a <figure> element; empty if no series has points.

    `smooth` draws the points pale, and their running mean over them.
    """
    series = {name: points for name, points in series.items() if points}
    if not series:
        return Markup()

    def draw(axes: "Axes") -> None:
        for (name, points), (color, dashes) in zip(series.items(), SERIES, strict=False):
            steps_N, values_N = _thin(points).T
            if smooth:
                axes.plot(steps_N, values_N, color=color, linewidth=1, alpha=0.28)
                values_N = _running_mean(values_N)
            marker = "o" if len(steps_N) == 1 else ""
            axes.plot(steps_N, values_N, color=color, linestyle=dashes, linewidth=2.25, marker=marker, label=name)
        axes.set_ylim(bottom=min(0, *(value for points in series.values() for _, value in points)))
        axes.locator_params(axis="x", integer=True)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_major_formatter("{x:.6g}")
        axes.set_xlabel("step")

    ends = "; ".join(f"{name} from {points[0][1]:.3g} to {points[-1][1]:.3g}" for name, points in series.items())
    svg = _svg(f"{title}. {ends}.", (7.2, 3.6), draw)
    return Markup("<figure><figcaption>{}</figcaption>{}</figure>").format(title, svg)


def reliability_diagram(bins: Sequence[Bin]) -> Markup:
    """Bar chart of accuracy over confidence, as an <svg> element; a calibrated model lies on the diagonal."""
    most = max((each.pixels for each in bins), default=0)
    tooltips = {}

    def draw(axes: "Axes") -> None:
        for index, each in enumerate(bins):
            if each.accuracy is None or each.confidence is None:
                continue
            opacity = 0.35 + 0.65 * math.sqrt(each.pixels / most)
            centre, width = (index + 0.5) / len(bins), 0.9 / len(bins)
            bar = axes.bar(centre, each.accuracy, width, color=SERIES[0][0], alpha=opacity)
            bar[0].set_gid(f"bin{index}")
            tooltips[f"bin{index}"] = (
                f"confidence {each.confidence:.2f}: {each.accuracy:.0%} right, {each.pixels} pixels"
            )
        axes.plot([0, 1], [0, 1], color=INK, linestyle="--", linewidth=1, alpha=0.6)
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="confidence", ylabel="share of right pixels")

    label = f"Share of right pixels over the confidence of the model, in {len(bins)} bins."
    return _svg(label, (4.4, 4.4), draw, tooltips)


def _svg(
    label: str, size: tuple[float, float], draw: Callable[["Axes"], None], tooltips: Mapping[str, str] | None = None
) -> Markup:
    """The drawing as an <svg> element: size in inches of 72 SVG units, tooltips by the gid of an artist."""
    import matplotlib as mpl  # noqa: PLC0415 (slow to import, and needed at the end of a run only)
    from matplotlib.figure import Figure  # noqa: PLC0415

    # Salted with the label, the ids of clip paths are reproducible, and differ between charts.
    buffer = io.StringIO()
    with mpl.rc_context(
        {"svg.hashsalt": label, "svg.fonttype": "none", "font.size": 12, "axes.labelcolor": SOFT, "text.color": SOFT}
    ):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot(frame_on=False)
        axes.grid(color=RULE)
        axes.set_axisbelow(True)
        axes.tick_params(length=0, pad=6, labelcolor=SOFT)
        draw(axes)
        if axes.get_legend_handles_labels()[1]:
            figure.legend(loc="outside lower left", ncols=len(SERIES), frameon=False)
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg ") :].replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)
    for gid, text in (tooltips or {}).items():
        svg = svg.replace(f'<g id="{gid}">', f"<g><title>{escape(text)}</title>")
    # Numbered ids would repeat in every chart; fonts come from the page.
    svg = re.sub(r' id="[a-z0-9.]+_\d+"|font-family: [^;"]*;? ?', "", svg)
    for color, variable in VARIABLES.items():
        svg = svg.replace(color, f"var(--{variable})")
    return Markup(svg)  # noqa: S704 (matplotlib escapes all text)


def _thin(points: Points) -> Values:
    """Average consecutive points, so that at most MAX_POINTS remain, float64 [N,2]."""
    parts = np.array_split(np.array(points, dtype=np.float64), min(len(points), MAX_POINTS))
    return np.array([part.mean(axis=0) for part in parts])


def _running_mean(values_N: Values) -> Values:
    reach = max(1, len(values_N) // SMOOTHING)
    window = np.full(2 * reach + 1, 1 / (2 * reach + 1))
    return np.convolve(np.pad(values_N, reach, mode="edge"), window, mode="valid")
