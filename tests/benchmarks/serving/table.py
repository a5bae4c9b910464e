"""The figures as Markdown: a table for docs/benchmarks.md, and all of them."""

import math

from tests.benchmarks.serving.aims import aims
from tests.benchmarks.serving.loads import OK
from tests.benchmarks.serving.report import LONE, QUIET_CORES, Report
from tests.benchmarks.serving.windows import CLOSED, LOADS, LONGEST_RECOVERY_S, TURNS

EIGHT, MANY = (load.name for load in CLOSED[1:])


def summary(found: Report) -> str:
    """A row a side: the table for docs/benchmarks.md."""
    head = [
        "640x480 JPEG in, PNG out",
        f"{LONE}: p50",
        f"{EIGHT}: masks/s, p99",
        f"{MANY}: masks/s, p99",
        "0.8x capacity: p99",
        "2x: masks/s, p99",
        "5x: masks/s, p99",
        "memory, MB",
    ]
    limit = found["limit"]
    alone, whole = ([_rate(limit[load][kind]) for load in (EIGHT, MANY)] for kind in ("infer", "whole"))
    rows = [
        ["raw onnxruntime, inference alone", f"{limit['lone_steps_ms']['infer']:.1f} ms", *alone, "", "", "", ""],
        ["raw onnxruntime, decode to encode", f"{limit['lone_ms']:.1f} ms", *whole, "", "", "", ""],
        *(_side_row(side) for side in found["sides"].values()),
    ]
    return _markdown(head, rows)


def _side_row(side: Report) -> list[str]:
    loads = side["loads"]
    closed = [
        f"{_rate(loads[load])} ({loads[load]['of_limit_infer']:.0%}), {_ms(loads[load])}" for load in (EIGHT, MANY)
    ]
    over = [f"{_rate(loads[load])}, {_ms(loads[load])}" for load in ("2x", "5x")]
    memory = f"{side['warm_bytes'] / 1e6:.0f}, at most {side['most_bytes'] / 1e6:.0f}"
    return [side["title"], f"{loads[LONE]['p50_ms']:.1f} ms", *closed, _ms(loads["0.8x"]), *over, memory]


def everything(found: Report) -> str:
    """All figures, for people."""
    parts = [_setting(found), summary(found), _limits(found)]
    parts += [f"**{side['title']}**: {_about(side)}\n\n{_loads(side)}" for side in found["sides"].values()]
    parts += [f"**{name}** was not measured: {reason}" for name, reason in found["failed"].items()]
    if found["breakdown_ms"]:
        parts.append(_breakdown(found["breakdown_ms"]))
    if found["start_to_ready_s"]:
        starts = found["start_to_ready_s"]
        parts.append(
            f"Start to ready: {starts['first_s']:.2f} s in an empty data folder, "
            f"{starts['again_s']:.2f} s in one that it knows."
        )
    if rows := aims(found):
        parts.append(_markdown(["aim", "found", ""], [[what, seen, "yes" if ok else "no"] for what, seen, ok in rows]))
    return "\n\n".join(parts) + "\n"


def _setting(found: Report) -> str:
    setting = found["setting"]
    once = ", ".join(load.name for load in LOADS if load.turns == 1)
    text = (
        f"{found['machine']}.\n"
        f"Medians over {setting['rounds']} round(s) of {TURNS} turns of {setting['seconds_a_window']:g} s (one turn at "
        f"{once}); percentiles over the requests of all turns, from when each was due; clients give up after "
        f"{setting['patience_s']:g} s. The client took {found['most_client_cores']:.2f} cores at most."
    )
    return f"{text}\n{noise(found)}" if noise(found) else text


def noise(found: Report) -> str:
    """A warning, where the machine had other things to do."""
    if found["most_other_cores"] <= QUIET_CORES:
        return ""
    return (
        f"**The machine was not quiet**: programs that have no part in this kept up to "
        f"{found['most_other_cores']:.1f} cores busy. The figures are noise to that extent."
    )


def _limits(found: Report) -> str:
    limit = found["limit"]
    steps = ", ".join(f"{step} {value:.1f} ms" for step, value in limit["lone_steps_ms"].items())
    return (
        f"The limit: one photograph after the other {limit['lone_setting']}: {steps}; inference alone "
        f"{limit['infer_setting']}; decode to encode {limit['whole_setting']}."
    )


def _about(side: Report) -> str:
    return (
        f"{side['settings']}; {side['processes']} processes, ready after {side['ready_s']:.1f} s, "
        f"{side['agreement']:.2%} of the pixels as onnxruntime's."
    )


def _loads(side: Report) -> str:
    head = ["load", "offered/s", "masks/s", "p50", "p95", "p99", "not answered with a mask", "MB", "cores", "recovery"]
    rows = []
    for load in LOADS:
        entry = side["loads"][load.name]
        times = [f"{entry[f'p{percent}_ms']:.1f}" for percent in (50, 95, 99)]
        failed = ", ".join(f"{outcome}: {count}" for outcome, count in entry["outcomes"].items() if outcome != OK)
        rates = ["" if load.clients else f"{entry['offered_per_s']:.1f}", f"{entry['masks_per_s']:.1f}"]
        spent = [f"{entry['memory_bytes'] / 1e6:.0f}", f"{entry['side_cores']:.2f}"]
        recovery = "" if "recovery_s" not in entry else _recovery(entry["recovery_s"])
        rows.append([load.name, *rates, *times, failed or "none", *spent, recovery])
    return _markdown(head, rows)


def _recovery(seconds: float) -> str:
    return f"not in {LONGEST_RECOVERY_S:g} s" if math.isnan(seconds) else f"{seconds:.1f} s"


def _breakdown(steps: Report) -> str:
    names = list(steps["ours"])
    rows = [
        [who, *(f"{steps[who][step]:.1f}" if step in steps[who] else "" for step in names)] for who in ("ours", "raw")
    ]
    return _markdown([f"{LONE}, ms", *names], rows)


def _rate(value: Report | float) -> str:
    return f"{value['masks_per_s'] if isinstance(value, dict) else value:.1f}"


def _ms(entry: Report) -> str:
    return "no answer" if math.isnan(entry["p99_ms"]) else f"{entry['p99_ms']:.0f} ms"


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
