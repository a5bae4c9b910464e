"""Compare the measured figures with the performance targets of the service."""

import math
from typing import Any

from tests.benchmarks.serving.figures import median_ratio
from tests.benchmarks.serving.report import MAX_OVERLOAD, SINGLE, Report
from tests.benchmarks.serving.windows import CLOSED

MIN_SHARE_OF_LIMIT = 0.92
MAX_MS_BEYOND_LIMIT = 3.0
MIN_GOODPUT = 0.9
MIN_SPEEDUP_AUTO = 1.7
MAX_START_S = 2.0
MAX_MEMORY_BYTES = 250e6
MAX_LOSS = 0.03
"""Relative to an earlier build: in masks per second, and in p50 and memory."""
OURS = ("ours", "ours-auto", "before")


def check_targets(found: Report) -> list[tuple[str, str, bool]]:
    """Return target, measured value, and whether the target is met. Empty if our service was not measured."""
    if "ours" not in found["servers"]:
        return []
    ours, starts = found["servers"]["ours"], found["start_to_ready_s"]
    loads = ours["loads"]
    rows = []
    for load in CLOSED[1:]:
        for kind, what in (("infer", "inference alone"), ("whole", "decoding, inference, encoding")):
            share = loads[load.name][f"of_limit_{kind}"]
            rows.append((f"{load.name}: 92 % of the limit, {what}", f"{share:.1%}", share >= MIN_SHARE_OF_LIMIT))
    beyond = loads[SINGLE]["beyond_limit_ms"]
    rows.append((f"{SINGLE}: p50 within 3 ms of the raw steps", f"{beyond:+.1f} ms", beyond <= MAX_MS_BEYOND_LIMIT))
    rows += _compare_with_peers(found)
    rows += _compare_with_earlier_build(found)
    share = loads[MAX_OVERLOAD]["of_peak"]
    rows.append((f"{MAX_OVERLOAD}: 90 % of the round's peak", f"{share:.1%}", share >= MIN_GOODPUT))
    rows.append(("start to ready under 2 s", f"{starts['first_s']:.2f} s", starts["first_s"] < MAX_START_S))
    memory = ours["warm_bytes"]
    rows.append(("memory under 250 MB", f"{memory / 1e6:.0f} MB", memory < MAX_MEMORY_BYTES))
    return rows


def _compare_with_peers(found: Report) -> list[tuple[str, str, bool]]:
    peers = {name: server for name, server in found["servers"].items() if name not in OURS}
    if not peers:
        return []
    tails = {server["title"]: server["loads"]["0.8x"]["p99_ms"] for server in peers.values()}
    best, own = min(tails, key=tails.__getitem__), found["servers"]["ours"]["loads"]["0.8x"]["p99_ms"]
    rows = [("0.8x: p99 lower than every peer's", f"{own:.0f} ms, {best} {tails[best]:.0f} ms", own < tails[best])]
    if "ours-auto" in found["servers"]:
        peaks = {server["title"]: _peak(server) for server in peers.values()}
        best = max(peaks, key=peaks.__getitem__)
        speedup = _peak(found["servers"]["ours-auto"]) / peaks[best] if peaks[best] else math.inf
        target = "default settings: 1.7 times the best peer's fp32"
        rows.append((target, f"{speedup:.2f} times {best}", speedup >= MIN_SPEEDUP_AUTO))
    return rows


def _compare_with_earlier_build(found: Report) -> list[tuple[str, str, bool]]:
    """Compare masks per second under closed loads turn by turn, p50 of a single client, and memory."""
    ours, before = found["servers"]["ours"], found["servers"].get("before")
    if not before:
        return []
    rows = []
    for load in (each.name for each in CLOSED):
        rates = [server["loads"][load]["masks_per_s_of_turns"] for server in (ours, before)]
        ratio = median_ratio(*rates)
        rows.append((f"{load}: masks/s of the earlier build", f"{ratio:.3f}", ratio >= 1 - MAX_LOSS))
    for what, ratio in (
        (f"{SINGLE}: p50", ours["loads"][SINGLE]["p50_ms"] / before["loads"][SINGLE]["p50_ms"]),
        ("memory after the warm-up", ours["warm_bytes"] / before["warm_bytes"]),
    ):
        rows.append((f"{what} of the earlier build", f"{ratio:.3f}", ratio <= 1 + MAX_LOSS))
    return rows


def _peak(server: Any) -> float:
    return max(float(server["loads"][load.name]["masks_per_s"]) for load in CLOSED)
