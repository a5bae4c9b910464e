"""Summarise the measurements: medians over turns, percentiles over all requests, ratios turn by turn."""

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
from tests.benchmarks.serving.rounds import Plan, Results, Starts
from tests.benchmarks.serving.servers import SERVERS
from tests.benchmarks.serving.windows import CLOSED, LOADS, OPEN, Load, Window

STEPS = ("decode", "queue", "infer", "encode")
SINGLE = CLOSED[0].name
MAX_OVERLOAD = OPEN[-1].name
QUIET_CORES = 0.1
"""Cores that other programs may use before the report warns that its figures are unreliable."""

Report = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """The results of a run with its parameters."""

    plan: Plan
    results: Results
    starts: Starts | None
    """None if our service was not measured."""


def report(measured: Measured) -> Report:
    """Return all figures by name, as plain data for JSON."""
    plan, results = measured.plan, measured.results
    return {
        "machine": machine(plan.cores),
        "setting": {
            "bundle": plan.bundle.name,
            "rounds": plan.rounds,
            "seconds_a_window": plan.seconds,
            "timeout_s": plan.timeout_s,
            "ours": plan.settings,
        },
        "limit": limit_figures(results),
        "servers": {name: server_figures(name, results) for name in results.windows},
        "failed": results.failed,
        "start_to_ready_s": asdict(measured.starts) if measured.starts else None,
        "breakdown_ms": breakdown(results) if "ours" in results.windows else None,
        "most_other_cores": max((w.other_cores for w in _all_windows(results)), default=0.0),
        "most_client_cores": max((w.client_cores for w in _all_windows(results)), default=0.0),
    }


def machine(cores: int) -> str:
    """Describe the machine."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    extensions = [label for label, flag in (("AVX-512", "avx512f"), ("VNNI", "avx512_vnni")) if flag in flags]
    with_ = f" with {' and '.join(extensions)}" if extensions else ""
    kernel = f"{platform.system()} {os.uname().release}"
    return f"{cores} cores of {name}{with_}, {kernel}, onnxruntime {version('onnxruntime')}"


def limit_figures(results: Results) -> Report:
    """Figures of raw onnxruntime: masks per second with and without decoding and encoding, and latency."""
    found: Report = {name: str(setting) for name, setting in _settings(results.best).items()}
    single = [entry["whole"] for entry in results.limit[SINGLE]]
    found["single_ms"] = median(entry["p50_ms"] for entry in single)
    found["single_steps_ms"] = {
        step: median(entry["steps_ms"][step] for entry in single) for step in single[0]["steps_ms"]
    }
    for load in CLOSED[1:]:
        entries = results.limit[load.name]
        found[load.name] = {
            kind: median(entry[kind]["masks_per_s"] for entry in entries) for kind in ("infer", "whole")
        }
    return found


def server_figures(name: str, results: Results) -> Report:
    """Figures of one server under all loads."""
    windows = results.windows[name]
    loads = {load.name: load_figures(windows[load.name]) for load in LOADS}
    for load in CLOSED[1:]:
        rates = [window.figures.masks_per_s for window in windows[load.name]]
        for kind in ("infer", "whole"):
            limits = [entry[kind]["masks_per_s"] for entry in results.limit[load.name]]
            loads[load.name][f"of_limit_{kind}"] = median_ratio(rates, limits)
    loads[MAX_OVERLOAD]["of_peak"] = median(
        window.figures.masks_per_s / peak if peak else 0.0
        for window, peak in zip(windows[MAX_OVERLOAD], _peaks(windows), strict=True)
    )
    # Also turn by turn: latency of a single client minus that of decoding, the fastest inference and encoding.
    pairs = zip(windows[SINGLE], results.limit[SINGLE], strict=True)
    loads[SINGLE]["beyond_limit_ms"] = median(
        pooled([w.figures])["p50_ms"] - entry["whole"]["p50_ms"] for w, entry in pairs
    )
    return {
        "title": SERVERS[name].title,
        "settings": SERVERS[name].description,
        "agreement": results.agreement[name],
        "processes": results.processes[name],
        "ready_s": median(results.ready_s[name]),
        "warm_bytes": median(results.warm_bytes[name]),
        "most_bytes": max(window.memory_bytes for load in windows.values() for window in load),
        "loads": loads,
    }


def _peaks(windows: dict[str, list[Window]]) -> list[float]:
    """Highest rate of a server in each round without overload: each closed load counts with its median."""
    rounds = len(windows[MAX_OVERLOAD]) // OPEN[-1].turns

    def rate(load: Load, round_: int) -> float:
        turns = windows[load.name][round_ * load.turns : (round_ + 1) * load.turns]
        return median(window.figures.masks_per_s for window in turns)

    return [max(rate(load, round_) for load in CLOSED) for round_ in range(rounds)]


def load_figures(windows: list[Window]) -> Report:
    """Figures of one server under one load, over all turns."""

    def median_of(value: Callable[[Window], float]) -> float:
        return median(map(value, windows))

    recoveries = [window.recovery_s for window in windows if window.recovery_s is not None]
    return {
        "offered_per_s": median_of(lambda window: window.figures.offered_per_s),
        "masks_per_s": median_of(lambda window: window.figures.masks_per_s),
        "masks_per_s_of_turns": [window.figures.masks_per_s for window in windows],
        **pooled([window.figures for window in windows]),
        "outcomes": all_outcomes([window.figures for window in windows]),
        "memory_bytes": median_of(lambda window: window.memory_bytes),
        "server_cores": median_of(lambda window: window.server_cores),
        "client_cores": median_of(lambda window: window.client_cores),
        "other_cores": median_of(lambda window: window.other_cores),
        **({"recovery_s": max(recoveries, key=lambda s: math.inf if math.isnan(s) else s)} if recoveries else {}),
    }


def breakdown(results: Results) -> Report:
    """Latency of a single client by step: our Server-Timing, and raw onnxruntime."""
    windows = results.windows["ours"][SINGLE]
    own = {step: median(window.timing_ms.get(step, 0.0) for window in windows) for step in STEPS}
    whole = pooled([window.figures for window in windows])["p50_ms"]
    raw = limit_figures(results)["single_steps_ms"]
    return {
        "ours": own | {"http": whole - sum(own.values()), "whole": whole},
        "raw": raw | {"whole": sum(raw.values())},
    }


def _settings(best: Best) -> dict[str, object]:
    return {"single_setting": best.single, "infer_setting": best.infer, "whole_setting": best.whole}


def _all_windows(results: Results) -> list[Window]:
    return [window for loads in results.windows.values() for load in loads.values() for window in load]
