"""What the service is meant to reach, and whether it did."""

import math
from typing import Any

from tests.benchmarks.serving.report import LONE, MOST, Report
from tests.benchmarks.serving.windows import CLOSED

LEAST_OF_LIMIT = 0.92
MOST_BEYOND_MS = 3.0
LEAST_GOODPUT = 0.9
LEAST_OF_CHOICE = 1.7
MOST_START_S = 2.0
MOST_BYTES = 250e6
OURS = ("ours", "ours-auto")


def aims(found: Report) -> list[tuple[str, str, bool]]:
    """What was aimed at, what was found, and whether that is enough. Empty without our service."""
    if "ours" not in found["sides"]:
        return []
    ours, starts = found["sides"]["ours"], found["start_to_ready_s"]
    loads = ours["loads"]
    rows = []
    for load in CLOSED[1:]:
        for kind, what in (("infer", "inference alone"), ("whole", "decoding, inference, encoding")):
            share = loads[load.name][f"of_limit_{kind}"]
            rows.append((f"{load.name}: 92 % of the limit, {what}", f"{share:.1%}", share >= LEAST_OF_LIMIT))
    beyond = loads[LONE]["beyond_limit_ms"]
    rows.append((f"{LONE}: p50 within 3 ms of the raw steps", f"{beyond:+.1f} ms", beyond <= MOST_BEYOND_MS))
    rows += _against_peers(found)
    share = loads[MOST]["of_peak"]
    rows.append((f"{MOST}: 90 % of the round's peak", f"{share:.1%}", share >= LEAST_GOODPUT))
    rows.append(("start to ready under 2 s", f"{starts['first_s']:.2f} s", starts["first_s"] < MOST_START_S))
    rows.append(("memory under 250 MB", f"{ours['warm_bytes'] / 1e6:.0f} MB", ours["warm_bytes"] < MOST_BYTES))
    return rows


def _against_peers(found: Report) -> list[tuple[str, str, bool]]:
    peers = {name: side for name, side in found["sides"].items() if name not in OURS}
    if not peers:
        return []
    tails = {side["title"]: side["loads"]["0.8x"]["p99_ms"] for side in peers.values()}
    best, own = min(tails, key=tails.__getitem__), found["sides"]["ours"]["loads"]["0.8x"]["p99_ms"]
    tail = ("0.8x: p99 ahead of every peer", f"{own:.0f} ms, {best} {tails[best]:.0f} ms", own < tails[best])
    return [tail, *_of_choice(found, peers)]


def _of_choice(found: Report, peers: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """Where the device suits another graph than the one that all others run."""
    if "ours-auto" not in found["sides"]:
        return []
    peaks = {side["title"]: _peak(side) for side in peers.values()}
    best = max(peaks, key=peaks.__getitem__)
    times = _peak(found["sides"]["ours-auto"]) / peaks[best] if peaks[best] else math.inf
    return [("as it comes: 1.7 times the best peer's fp32", f"{times:.2f} times {best}", times >= LEAST_OF_CHOICE)]


def _peak(side: Any) -> float:
    return max(float(side["loads"][load.name]["masks_per_s"]) for load in CLOSED)
