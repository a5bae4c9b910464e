"""What was measured, as plain data: medians over turns, percentiles over all requests, ratios turn by turn."""

import math
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks.serving.figures import all_outcomes, median_ratio, pooled
from tests.benchmarks.serving.limit import Best
from tests.benchmarks.serving.rounds import Plan, Results
from tests.benchmarks.serving.sides import SIDES
from tests.benchmarks.serving.starts import Starts
from tests.benchmarks.serving.windows import CLOSED, LOADS, OPEN, Load, Window

STEPS = ("decode", "queue", "infer", "encode")
LONE = CLOSED[0].name
MOST = OPEN[-1].name
QUIET_CORES = 0.1
"""Of a machine on which other programs keep no more than so many cores busy, figures are worth something."""

Report = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """All of a run."""

    plan: Plan
    results: Results
    starts: Starts | None
    """None where our own service is not among the sides."""


def report(measured: Measured) -> Report:
    """The figures by name, ready for JSON."""
    plan, results = measured.plan, measured.results
    return {
        "machine": machine(plan.cores),
        "setting": {
            "bundle": plan.bundle.name,
            "rounds": plan.rounds,
            "seconds_a_window": plan.seconds,
            "patience_s": plan.patience_s,
            "ours": plan.settings,
        },
        "limit": limit_figures(results),
        "sides": {name: side_figures(name, results) for name in results.windows},
        "failed": results.failed,
        "start_to_ready_s": asdict(measured.starts) if measured.starts else None,
        "breakdown_ms": breakdown(results) if "ours" in results.windows else None,
        "most_other_cores": max((w.other_cores for w in _all_windows(results)), default=0.0),
        "most_client_cores": max((w.client_cores for w in _all_windows(results)), default=0.0),
    }


def machine(cores: int) -> str:
    """What it ran on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    special = [label for label, flag in (("AVX-512", "avx512f"), ("VNNI", "avx512_vnni")) if flag in flags]
    with_ = f" with {' and '.join(special)}" if special else ""
    kernel = f"{platform.system()} {os.uname().release}"
    return f"{cores} cores of {name}{with_}, {kernel}, onnxruntime {version('onnxruntime')}"


def limit_figures(results: Results) -> Report:
    """Raw onnxruntime: masks a second with and without the images, and one photograph after the other."""
    found: Report = {name: str(setting) for name, setting in _settings(results.best).items()}
    lone = [entry["whole"] for entry in results.limit[LONE]]
    found["lone_ms"] = median(entry["p50_ms"] for entry in lone)
    found["lone_steps_ms"] = {step: median(entry["steps_ms"][step] for entry in lone) for step in lone[0]["steps_ms"]}
    for load in CLOSED[1:]:
        entries = results.limit[load.name]
        found[load.name] = {
            kind: median(entry[kind]["masks_per_s"] for entry in entries) for kind in ("infer", "whole")
        }
    return found


def side_figures(name: str, results: Results) -> Report:
    """One side under all loads."""
    windows = results.windows[name]
    loads = {load.name: load_figures(windows[load.name]) for load in LOADS}
    for load in CLOSED[1:]:
        rates = [window.figures.masks_per_s for window in windows[load.name]]
        for kind in ("infer", "whole"):
            limits = [entry[kind]["masks_per_s"] for entry in results.limit[load.name]]
            loads[load.name][f"of_limit_{kind}"] = median_ratio(rates, limits)
    loads[MOST]["of_peak"] = median(
        window.figures.masks_per_s / peak if peak else 0.0
        for window, peak in zip(windows[MOST], _peaks(windows), strict=True)
    )
    # Turn by turn here, too: what a lone client waits beyond decoding, the fastest inference and encoding.
    lone = zip(windows[LONE], results.limit[LONE], strict=True)
    loads[LONE]["beyond_limit_ms"] = median(
        pooled([w.figures])["p50_ms"] - entry["whole"]["p50_ms"] for w, entry in lone
    )
    return {
        "title": SIDES[name].title,
        "settings": SIDES[name].says,
        "agreement": results.agreement[name],
        "processes": results.processes[name],
        "ready_s": median(results.ready_s[name]),
        "warm_bytes": median(results.warm_bytes[name]),
        "most_bytes": max(window.memory_bytes for load in windows.values() for window in load),
        "loads": loads,
    }


def _peaks(windows: dict[str, list[Window]]) -> list[float]:
    """The most that a side did in each round without overload: of each closed load the median of its turns."""
    rounds = len(windows[MOST]) // OPEN[-1].turns

    def rate(load: Load, number: int) -> float:
        turns = windows[load.name][number * load.turns : (number + 1) * load.turns]
        return median(window.figures.masks_per_s for window in turns)

    return [max(rate(load, number) for load in CLOSED) for number in range(rounds)]


def load_figures(windows: list[Window]) -> Report:
    """One side under one load, over all turns."""

    def middle(of: Callable[[Window], float]) -> float:
        return median(map(of, windows))

    recoveries = [window.recovery_s for window in windows if window.recovery_s is not None]
    return {
        "offered_per_s": middle(lambda window: window.figures.offered_per_s),
        "masks_per_s": middle(lambda window: window.figures.masks_per_s),
        "masks_per_s_of_turns": [window.figures.masks_per_s for window in windows],
        **pooled([window.figures for window in windows]),
        "outcomes": all_outcomes([window.figures for window in windows]),
        "memory_bytes": middle(lambda window: window.memory_bytes),
        "side_cores": middle(lambda window: window.side_cores),
        "client_cores": middle(lambda window: window.client_cores),
        "other_cores": middle(lambda window: window.other_cores),
        **({"recovery_s": max(recoveries, key=lambda s: math.inf if math.isnan(s) else s)} if recoveries else {}),
    }


def breakdown(results: Results) -> Report:
    """Where a lone client's time goes: our own clock beside the raw steps."""
    windows = results.windows["ours"][LONE]
    own = {step: median(window.timing_ms.get(step, 0.0) for window in windows) for step in STEPS}
    whole = pooled([window.figures for window in windows])["p50_ms"]
    raw = limit_figures(results)["lone_steps_ms"]
    return {
        "ours": own | {"http": whole - sum(own.values()), "whole": whole},
        "raw": raw | {"whole": sum(raw.values())},
    }


def _settings(best: Best) -> dict[str, object]:
    return {"lone_setting": best.lone, "infer_setting": best.infer, "whole_setting": best.whole}


def _all_windows(results: Results) -> list[Window]:
    return [window for side in results.windows.values() for load in side.values() for window in load]
