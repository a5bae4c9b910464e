"""Draw the figures as an SVG: latency by rate, and masks per second under overload."""

import io
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, ScalarFormatter

from tests.benchmarks.serving.report import Report
from tests.benchmarks.serving.windows import CLOSED, OPEN

GREY = "#7d8590"
"""Colour of text and axes, readable on white and on black."""
COLORS = {
    "ours": "#d55e00",
    "before": "#f0a860",
    "ours-auto": "#a66a00",
    "fastapi": "#0082c8",
    "litserve": "#009e73",
    "bentoml": "#cc79a7",
    "triton": "#8a8f98",
}
"""Distinguishable with any kind of colour vision, on white and on black."""
# With a fixed salt and no date, the same figures give the same bytes.
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "serving",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.alpha": 0.3,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), GREY),
}


def svg(found: Report) -> str:
    """Draw both panels."""
    sink = io.StringIO()
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 4.8), layout="constrained")
        closed, overload = figure.subplots(1, 2, width_ratios=(4, 3))
        _draw_closed_loads(closed, found)
        _draw_open_loads(overload, found)
        figure.legend(
            *overload.get_legend_handles_labels(), loc="outside lower center", ncols=len(COLORS), frameon=False
        )
        figure.savefig(sink, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return sink.getvalue()


def _draw_closed_loads(axes: Axes, found: Report) -> None:
    axes.set_title("1, 8 and 32 clients: latency at masks per second")
    axes.set_xlabel("masks per second (dotted: raw onnxruntime, inference alone)")
    axes.set_ylabel("ms (solid: p50, dashed: p99)")
    axes.set_yscale("log")
    axes.minorticks_off()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.axvline(max(found["limit"][load.name]["infer"] for load in CLOSED[1:]), color=GREY, linestyle=":")
    for name, server in found["servers"].items():
        loads = [server["loads"][load.name] for load in CLOSED]
        rates = [load["masks_per_s"] for load in loads]
        for key, line in (("p50_ms", "o-"), ("p99_ms", "o--")):
            axes.plot(rates, [load[key] for load in loads], line, **_line(name))
    axes.set_xlim(left=0)


def _draw_open_loads(axes: Axes, found: Report) -> None:
    axes.set_title("Overload: masks per second")
    axes.set_xlabel("requests, in multiples of the server's capacity")
    axes.set_ylabel("masks per second before the client's timeout")
    for name, server in found["servers"].items():
        rates = [server["loads"][load.name]["masks_per_s"] for load in OPEN]
        axes.plot([load.name for load in OPEN], rates, "o-", label=server["title"], **_line(name))
    axes.set_ylim(bottom=0)


def _line(name: str) -> dict[str, Any]:
    return {"color": COLORS[name], "linewidth": 3 if name == "ours" else 1.8, "markersize": 5}
