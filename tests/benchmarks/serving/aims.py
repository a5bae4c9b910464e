"""What the service is meant to reach, and whether it did."""

from tests.benchmarks.serving.report import LONE, Report
from tests.benchmarks.serving.windows import CLOSED

LEAST_OF_LIMIT = 0.92
MOST_BEYOND_MS = 3.0
LEAST_GOODPUT = 0.9
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
    peak = max(loads[load.name]["masks_per_s"] for load in CLOSED)
    share = loads["5x"]["masks_per_s"] / peak if peak else 0.0
    rows.append(("5x: 90 % of the peak", f"{share:.1%}", share >= LEAST_GOODPUT))
    rows.append(("start to ready under 2 s", f"{starts['first_s']:.2f} s", starts["first_s"] < MOST_START_S))
    rows.append(("memory under 250 MB", f"{ours['warm_bytes'] / 1e6:.0f} MB", ours["warm_bytes"] < MOST_BYTES))
    return rows


def _against_peers(found: Report) -> list[tuple[str, str, bool]]:
    peers = {name: side for name, side in found["sides"].items() if name not in OURS}
    if not peers:
        return []
    tails = {side["title"]: side["loads"]["0.8x"]["p99_ms"] for side in peers.values()}
    best, own = min(tails, key=tails.__getitem__), found["sides"]["ours"]["loads"]["0.8x"]["p99_ms"]
    return [("0.8x: p99 ahead of every peer", f"{own:.0f} ms, {best} {tails[best]:.0f} ms", own < tails[best])]
