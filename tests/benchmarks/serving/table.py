"""Write the figures as Markdown: the table of docs/benchmarks.md, and a complete report."""

import math

from tests.benchmarks.serving.loads import OK
from tests.benchmarks.serving.report import QUIET_CORES, SINGLE, Report
from tests.benchmarks.serving.targets import check_targets
from tests.benchmarks.serving.windows import CLOSED, LOADS, MAX_RECOVERY_S, TURNS

EIGHT, MANY = (load.name for load in CLOSED[1:])


def summary(found: Report) -> str:
    """Return the table of docs/benchmarks.md: one row per server."""
    head = [
        "640x480 JPEG in, PNG out",
        f"{SINGLE}: p50",
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
        ["raw onnxruntime, inference alone", f"{limit['single_steps_ms']['infer']:.1f} ms", *alone, "", "", "", ""],
        ["raw onnxruntime, decode to encode", f"{limit['single_ms']:.1f} ms", *whole, "", "", "", ""],
        *(_server_row(server) for server in found["servers"].values()),
    ]
    return _markdown(head, rows)


def _server_row(server: Report) -> list[str]:
    loads = server["loads"]
    closed = [
        f"{_rate(loads[load])} ({loads[load]['of_limit_infer']:.0%}), {_ms(loads[load])}" for load in (EIGHT, MANY)
    ]
    over = [f"{_rate(loads[load])}, {_ms(loads[load])}" for load in ("2x", "5x")]
    memory = f"{server['warm_bytes'] / 1e6:.0f}, at most {server['most_bytes'] / 1e6:.0f}"
    return [server["title"], f"{loads[SINGLE]['p50_ms']:.1f} ms", *closed, _ms(loads["0.8x"]), *over, memory]


def everything(found: Report) -> str:
    """Return the complete report."""
    parts = [_setting(found), summary(found), _limits(found)]
    parts += [f"**{each['title']}**: {_about(each)}\n\n{_loads(each)}" for each in found["servers"].values()]
    parts += [f"**{name}** was not measured: {reason}" for name, reason in found["failed"].items()]
    if found["breakdown_ms"]:
        parts.append(_breakdown(found["breakdown_ms"]))
    if found["start_to_ready_s"]:
        starts = found["start_to_ready_s"]
        parts.append(
            f"Start to ready: {starts['first_s']:.2f} s with an empty data folder, "
            f"{starts['again_s']:.2f} s with an existing one."
        )
    if rows := check_targets(found):
        parts.append(
            _markdown(
                ["target", "measured", "met"], [[target, value, "yes" if met else "no"] for target, value, met in rows]
            )
        )
    return "\n\n".join(parts) + "\n"


def _setting(found: Report) -> str:
    setting = found["setting"]
    once = ", ".join(load.name for load in LOADS if load.turns == 1)
    text = (
        f"{found['machine']}.\n"
        f"Medians over {setting['rounds']} round(s) of {TURNS} turns of {setting['seconds_a_window']:g} s (one turn at "
        f"{once}); percentiles over the requests of all turns, from the time at which each was due; client timeout "
        f"{setting['timeout_s']:g} s. The client used at most {found['most_client_cores']:.2f} cores."
    )
    return f"{text}\n{noise(found)}" if noise(found) else text


def noise(found: Report) -> str:
    """Return a warning if other programs were running."""
    if found["most_other_cores"] <= QUIET_CORES:
        return ""
    return (
        f"**The machine was not quiet**: other programs used up to {found['most_other_cores']:.1f} cores, which makes "
        "the figures unreliable."
    )


def _limits(found: Report) -> str:
    limit = found["limit"]
    steps = ", ".join(f"{step} {value:.1f} ms" for step, value in limit["single_steps_ms"].items())
    return (
        f"The limit: one photograph at a time {limit['single_setting']}: {steps}; inference alone "
        f"{limit['infer_setting']}; decode to encode {limit['whole_setting']}."
    )


def _about(server: Report) -> str:
    return (
        f"{server['settings']}; {server['processes']} processes, ready after {server['ready_s']:.1f} s, "
        f"{server['agreement']:.2%} of the pixels equal raw onnxruntime's."
    )


def _loads(server: Report) -> str:
    head = ["load", "offered/s", "masks/s", "p50", "p95", "p99", "not answered with a mask", "MB", "cores", "recovery"]
    rows = []
    for load in LOADS:
        entry = server["loads"][load.name]
        times = [f"{entry[f'p{percent}_ms']:.1f}" for percent in (50, 95, 99)]
        failed = ", ".join(f"{outcome}: {count}" for outcome, count in entry["outcomes"].items() if outcome != OK)
        rates = ["" if load.clients else f"{entry['offered_per_s']:.1f}", f"{entry['masks_per_s']:.1f}"]
        spent = [f"{entry['memory_bytes'] / 1e6:.0f}", f"{entry['server_cores']:.2f}"]
        recovery = "" if "recovery_s" not in entry else _recovery(entry["recovery_s"])
        rows.append([load.name, *rates, *times, failed or "none", *spent, recovery])
    return _markdown(head, rows)


def _recovery(seconds: float) -> str:
    return f"not in {MAX_RECOVERY_S:g} s" if math.isnan(seconds) else f"{seconds:.1f} s"


def _breakdown(steps: Report) -> str:
    names = list(steps["ours"])
    rows = [
        [name, *(f"{steps[name][step]:.1f}" if step in steps[name] else "" for step in names)]
        for name in ("ours", "raw")
    ]
    return _markdown([f"{SINGLE}, ms", *names], rows)


def _rate(value: Report | float) -> str:
    return f"{value['masks_per_s'] if isinstance(value, dict) else value:.1f}"


def _ms(entry: Report) -> str:
    return "no answer" if math.isnan(entry["p99_ms"]) else f"{entry['p99_ms']:.0f} ms"


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
