"""Picture of the verdicts by the true difference of two models."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from service.releases.gate.verdict import Outcome
from tests.scenarios.gate_draws import MARGIN, MODES, Trial

COLOURS: dict[Outcome, str] = {"reject": "#d1495b", "undecided": "#cccccc", "promote": "#3c8d5a"}
BINS = np.array([-60, -20, -10, -5, -3, -2, -1, 0, 1, 2, 3, 5, 10, 20, 60])
"""Of the true difference, in points of mIoU."""


def draw_verdicts(file: Path, trials: Sequence[Trial]) -> None:
    """Draw the shares of the verdicts: a row for each mode, a column for each size of the validation set."""
    sizes = sorted({trial.units for trial in trials})
    figure = Figure(figsize=(4 * len(sizes), 5.5), layout="constrained")
    axes = figure.subplots(len(MODES), len(sizes), sharex=True, sharey=True, squeeze=False)
    labels = [f"{low:+d}..{high:+d}" for low, high in pairwise(BINS)]
    for row, mode in zip(axes, MODES, strict=True):
        for axis, units in zip(row, sizes, strict=True):
            own = [trial for trial in trials if trial.units == units]
            bins = np.digitize([100 * trial.true_difference for trial in own], BINS) - 1
            base = np.zeros(len(labels))
            for outcome, colour in COLOURS.items():
                hits = np.array([trial.verdicts[mode] == outcome for trial in own])
                shares = np.array(
                    [100 * hits[bins == each].mean() if (bins == each).any() else 0.0 for each in range(len(labels))]
                )
                axis.bar(labels, shares, bottom=base, color=colour, label=outcome, width=0.9)
                base += shares
            axis.axvline(np.interp(-100 * MARGIN, BINS, np.arange(len(BINS))) - 0.5, color="black", linewidth=1)
            axis.set_title(f"{mode}, {units} stretches", fontsize=10)
            axis.tick_params(axis="x", rotation=90)
    axes[0][0].legend(loc="lower right", fontsize=8)
    figure.supxlabel("true difference, candidate minus active, points of mIoU (line: the margin)")
    figure.supylabel("verdicts, %")
    figure.savefig(file, dpi=110)
