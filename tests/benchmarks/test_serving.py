"""The serving benchmark: one short run of our service, and hand-worked cases of the published figures."""

import os
import re
import signal
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.serving import __main__ as program
from tests.benchmarks.serving import limit, photographs, windows
from tests.benchmarks.serving.figures import Figures, figures, median_ratio, percentile, pooled, server_timing
from tests.benchmarks.serving.limit import Best, Setting, fastest
from tests.benchmarks.serving.loads import OK, TIMED_OUT, Sample
from tests.benchmarks.serving.plot import svg
from tests.benchmarks.serving.processes import process_tree, resident_bytes
from tests.benchmarks.serving.report import Measured, report
from tests.benchmarks.serving.rounds import Plan, Results, Starts, schedule
from tests.benchmarks.serving.servers import ROOT
from tests.benchmarks.serving.table import everything, summary
from tests.benchmarks.serving.targets import check_targets
from tests.benchmarks.serving.windows import LOADS, TURNS, Load, Window
from tests.service.tiny_bundle import write_bundle


def test_short_run_of_our_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("skimage", reason="scikit-image (extra: demo) is not installed")
    monkeypatch.setattr(photographs, "COUNT", 2)
    monkeypatch.setattr(limit, "TRIALS", 1)
    monkeypatch.setattr(limit, "python_of", lambda _: sys.executable)
    monkeypatch.setattr(windows, "MAX_RECOVERY_S", 0.5)
    monkeypatch.setattr(Load, "warm_up_s", lambda *_: 0.05)
    bundle, out = write_bundle(tmp_path / "bundle"), tmp_path / "out"
    command = f"--sides ours --rounds 1 --starts 1 --seconds 0.1 --patience 0.5 --bundle {bundle} --out {out}"
    monkeypatch.setattr(sys, "argv", ["serving", *command.split()])
    assert program.main() == 0
    assert "| Maskloop |" in (out / "results.md").read_text()
    assert "Maskloop" in (out / "serving.svg").read_text()
    assert (out / "results.json").is_file()


@pytest.mark.parametrize(("percent", "expected"), [(0, 1.0), (50, 2.5), (95, 9.1), (100, 10.0)])
def test_percentile_interpolates(percent: float, expected: float) -> None:
    assert percentile([10.0, 1.0, 4.0, 1.0], percent) == pytest.approx(expected)


def test_figures_of_a_window_by_hand() -> None:
    samples = [
        Sample(0.5, 1.2, OK, ""),  # due before the window, ends in it
        Sample(1.0, 1.1, OK, ""),
        Sample(1.2, 2.2, OK, ""),  # ends after it
        Sample(1.5, 1.51, "503", ""),
        Sample(1.6, 6.6, TIMED_OUT, ""),
    ]
    closed, open_ = (figures(samples, 1, 2, closed=closed) for closed in (True, False))
    assert closed.masks_per_s == open_.masks_per_s == 2
    assert closed.offered_per_s == open_.offered_per_s == 4
    assert closed.latencies_ms == pytest.approx([100, 700])
    # Rejected requests do not count; a timeout counts as the longest latency.
    assert open_.latencies_ms == pytest.approx([100, 1000, 5000])
    assert open_.outcomes == {OK: 2, "503": 1, TIMED_OUT: 1}


def test_percentiles_are_pooled_and_ratios_are_paired() -> None:
    turns = [Figures(offered_per_s=1, masks_per_s=1, latencies_ms=[v], outcomes={}) for v in (1.0, 2.0, 9.0)]
    assert pooled(turns)["p50_ms"] == 2
    assert median_ratio([10, 30, 8], [20, 40, 10]) == 0.75


def test_server_timing_medians_by_step() -> None:
    headers = ("decode;dur=1.5, infer;dur=30", "decode;dur=2.5, infer;dur=50", "infer;dur=40", "")
    assert server_timing([Sample(0, 1, OK, header) for header in headers]) == {"decode": 2.0, "infer": 40.0}


def test_fastest_setting_is_independent_of_the_speed_of_a_trial() -> None:
    slow, fast = (Setting(sessions=1, threads=threads, runners=1) for threads in (1, 2))
    assert fastest([{slow: 8.0, fast: 10.0}, {slow: 16.0, fast: 20.0}, {slow: 30.0, fast: 10.0}]) == fast


def test_shared_pages_are_counted_once() -> None:
    child = "import os, time; kept = bytearray(os.urandom(64 << 20)); os.fork(); print(1, flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE, start_new_session=True) as parent:
        assert parent.stdout is not None
        try:
            parent.stdout.readline()
            parent.stdout.readline()
            pids = process_tree(parent.pid)
            assert len(pids) == 2
            assert 64 << 20 < resident_bytes(pids) < 100 << 20
        finally:
            os.killpg(parent.pid, signal.SIGKILL)


def test_schedule_rotates_the_order_and_changes_the_seed() -> None:
    load = replace(next(load for load in LOADS if load.name == "8 clients"), turns=2)
    assert list(schedule(load, 1, ("ours", "litserve"))) == [
        *((2, "litserve"), (2, "limit"), (2, "ours")),
        *((3, "limit"), (3, "ours"), (3, "litserve")),
    ]


def measured() -> Measured:
    """Two rounds: our service makes 24 and 30 masks per second of 25 and 30; a peer loses clients to timeouts."""

    def window(load: Load, rate: float, *, slow: bool) -> Window:
        latencies = [30.0, 40.0, 5000.0 if slow else 50.0]
        return Window(
            figures=Figures(
                offered_per_s=rate, masks_per_s=rate, latencies_ms=latencies, outcomes={OK: 2, TIMED_OUT: int(slow)}
            ),
            timing_ms={"decode": 3.0, "queue": 0.5, "infer": 30.0, "encode": 2.0},
            memory_bytes=200_000_000,
            server_cores=1.9,
            client_cores=0.02,
            other_cores=0.01,
            recovery_s=float("nan") if load.times_capacity > 1 and slow else None,
        )

    rates = {"ours": (24.0, 30.0), "ours-auto": (34.0, 40.8), "litserve": (20.0, 24.0)}
    by_server = {
        name: {
            load.name: [window(load, rate, slow=name == "litserve") for rate in both for _ in range(load.turns)]
            for load in LOADS
        }
        for name, both in rates.items()
    }
    single = {"whole": {"masks_per_s": 28.0, "p50_ms": 36.0, "steps_ms": {"decode": 3.0, "infer": 31.0, "encode": 2.0}}}
    pairs = [
        {kind: {"masks_per_s": rate} for kind in ("infer", "whole")} for rate in (25.0, 30.0) for _ in range(TURNS)
    ]
    setting = Setting(sessions=2, threads=1, runners=2)
    results = Results(
        best=Best(single=setting, infer=setting, whole=setting),
        limit={"1 client": [single] * 2 * TURNS, "8 clients": list(pairs), "32 clients": list(pairs)},
        windows=by_server,
        agreement=dict.fromkeys(rates, 1.0),
        warm_bytes={name: [190_000_000, 200_000_000] for name in rates},
        ready_s={name: [1.5, 1.7] for name in rates},
        processes=dict.fromkeys(rates, 1),
        failed={"triton": "it is not installed"},
    )
    unused: dict[str, Any] = {"settings": {}, "folder": Path(), "photographs": Path(), "bundle": Path("starter")}
    plan = Plan(servers=tuple(rates), rounds=2, seconds=8, timeout_s=5, cores=2, **unused)
    return Measured(plan=plan, results=results, starts=Starts(first_s=1.8, again_s=1.6))


def test_tables_by_hand() -> None:
    found = report(measured())
    row = next(line for line in summary(found).splitlines() if "| Maskloop |" in line)
    # 24 of 25 and 30 of 30 are 96 % and 100 %: median 98 %.
    assert "| Maskloop | 40.0 ms | 27.0 (98%), 50 ms |" in row
    assert "195, at most 200 |" in row
    text = everything(found)
    assert "**triton** was not measured: it is not installed" in text
    assert "| 2x | 22.0 | 22.0 | 40.0 | 5000.0 | 5000.0 | timed out: 2 | 200 | 1.90 | not in 15 s |" in text
    assert "| ours | 3.0 | 0.5 | 30.0 | 2.0 | 4.5 | 40.0 |" in text


def test_targets_by_hand() -> None:
    run = measured()
    overload = run.results.windows["ours"]["5x"]
    for index, rate in enumerate((12.0, 27.0)):
        overload[index] = replace(overload[index], figures=replace(overload[index].figures, masks_per_s=rate))
    rows = check_targets(report(run))
    assert ("8 clients: 92 % of the limit, inference alone", "98.0%", True) in rows
    assert ("1 client: p50 within 3 ms of the raw steps", "+4.0 ms", False) in rows
    assert ("0.8x: p99 lower than every peer's", "50 ms, LitServe 5000 ms", True) in rows
    # 12 of 24 and 27 of 30 are 50 % and 90 %.
    assert ("5x: 90 % of the round's peak", "70.0%", False) in rows
    assert ("default settings: 1.7 times the best peer's fp32", "1.70 times LitServe", True) in rows
    assert ("start to ready under 2 s", "1.80 s", True) in rows


def test_comparison_with_an_earlier_build_by_hand() -> None:
    found = report(measured())
    before = deepcopy(found["servers"]["ours"])
    turns = before["loads"]["8 clients"]["masks_per_s_of_turns"]
    before["loads"]["8 clients"]["masks_per_s_of_turns"] = [rate / 0.96 for rate in turns]
    before["loads"]["1 client"]["p50_ms"] /= 1.02
    before["warm_bytes"] /= 1.04
    found["servers"]["before"] = before
    rows = check_targets(found)
    assert ("8 clients: masks/s of the earlier build", "0.960", False) in rows
    assert ("32 clients: masks/s of the earlier build", "1.000", True) in rows
    assert ("1 client: p50 of the earlier build", "1.020", True) in rows
    assert ("memory after the warm-up of the earlier build", "1.040", False) in rows
    assert len(rows) == len(check_targets(report(measured()))) + 5


def test_plot_is_deterministic() -> None:
    found = report(measured())
    assert svg(found) == svg(found)


def test_peers_use_the_locked_onnxruntime() -> None:
    locked = re.search(r"^onnxruntime==\S+", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert locked is not None
    files = sorted((ROOT / "tests/benchmarks/serving/peers").glob("*.txt"))
    assert [locked[0] in file.read_text().splitlines() for file in files] == [True] * 5


def test_publish_finds_the_marks_and_the_picture_in_the_page() -> None:
    page = program.PAGE.read_text(encoding="utf-8")
    assert f"\n{program.PICTURE}\n{program.MARKS[1]}" in page
    published = program.between_marks(page, "new\n")
    assert published.startswith(page[: page.index(program.MARKS[0])])
    assert "new\n" in published
