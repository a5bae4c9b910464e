"""The serving benchmark: servers are started, held still and ended; the figures become tables and a picture."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from tests.benchmarks.serving.__main__ import MARKS, PAGE, PICTURE, arguments, between_marks, default_sides, without_nan
from tests.benchmarks.serving.aims import aims
from tests.benchmarks.serving.figures import Figures
from tests.benchmarks.serving.limit import Best, Setting, fastest, settings
from tests.benchmarks.serving.loads import GAVE_UP, OK
from tests.benchmarks.serving.photographs import SIZE, write_photographs
from tests.benchmarks.serving.plot import svg
from tests.benchmarks.serving.processes import cpu_seconds, resident_bytes, tree
from tests.benchmarks.serving.report import Measured, report
from tests.benchmarks.serving.rounds import Plan, Results, schedule
from tests.benchmarks.serving.servers import Server, free_port
from tests.benchmarks.serving.sides import ROOT, Place, Side, SideFailed
from tests.benchmarks.serving.starts import Starts
from tests.benchmarks.serving.table import everything, summary
from tests.benchmarks.serving.windows import LOADS, TURNS, Load, Window, lone_ms

# A server with a child, which outlives it unless somebody ends it.
PROGRAM = """
import http.server, os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(str(child.pid).encode())
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def side(program: str) -> Side:
    return Side(
        title="a side",
        says="",
        command=lambda place: [sys.executable, "-c", program, str(place.port)],
        environment=lambda _: dict(os.environ),
    )


def place(folder: Path) -> Place:
    return Place(port=free_port(), folder=folder, bundle=folder, cores=1)


def state(pid: int) -> str:
    """R, S, T, ... as /proc says; empty once it is gone. One that has ended and whose parent does not know is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0].replace("Z", "")
    except FileNotFoundError:
        return ""


def test_a_server_is_held_still_and_ended_with_its_children(tmp_path: Path) -> None:
    with Server(side(PROGRAM), place(tmp_path)) as server:
        child = int(server.ask("GET", "/").body)
        assert server.processes == 2
        assert server.memory_bytes > 5e6
        server.pause()
        wait_for(lambda: state(child) == "T")
        server.resume()
        wait_for(lambda: state(child) == "S")
        assert server.ask("GET", "/").status == 200
    wait_for(lambda: state(child) == "")
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", server.place.port)):
        pass


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(SideFailed, match=r"(?s)exit code 1.*ValueError: no licence"):
        Server(side("raise ValueError('no licence')"), place(tmp_path))


def test_pages_that_processes_share_are_counted_once() -> None:
    program = (
        "import os, time; kept = bytearray(os.urandom(64 << 20)); os.fork(); print(1, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, start_new_session=True) as parent:
        assert parent.stdout is not None
        try:
            parent.stdout.readline()
            parent.stdout.readline()
            family = tree(parent.pid)
            assert len(family) == 2
            assert 64 << 20 < resident_bytes(family[:1]) < 100 << 20
            assert 64 << 20 < resident_bytes(family) < 100 << 20
        finally:
            os.killpg(parent.pid, signal.SIGKILL)


def test_cpu_of_processes() -> None:
    before, end = cpu_seconds([os.getpid()]), time.process_time() + 0.2
    while time.process_time() < end:
        pass
    assert cpu_seconds([os.getpid()]) - before == pytest.approx(0.2, abs=0.1)


def test_the_settings_that_are_tried() -> None:
    assert Setting(sessions=1, threads=4, runners=1) in settings(4)
    assert Setting(sessions=4, threads=1, runners=4) in settings(4)
    assert all(setting.sessions * setting.threads == 4 for setting in settings(4))
    assert settings(1)[0] == Setting(sessions=1, threads=1, runners=1)


def test_the_fastest_setting_is_so_in_most_passes_however_fast_the_machine_was() -> None:
    slow, fast = (Setting(sessions=1, threads=threads, runners=1) for threads in (1, 2))
    passes = [{slow: 8.0, fast: 10.0}, {slow: 16.0, fast: 20.0}, {slow: 30.0, fast: 10.0}]
    assert fastest(passes) == fast


def test_photographs_are_jpegs_of_one_size_and_always_the_same(tmp_path: Path) -> None:
    pytest.importorskip("skimage", reason="scikit-image (extra: demo) is not installed")
    from PIL import Image

    first, second = (sorted(write_photographs(tmp_path / name).iterdir()) for name in "ab")
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]
    assert len({file.read_bytes() for file in first}) == len(first)
    with Image.open(first[0]) as image:
        assert (image.format, image.size) == ("JPEG", SIZE)


def test_own_photographs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give a folder of photographs"):
        write_photographs(tmp_path / "out", tmp_path)


def test_peers_run_the_onnxruntime_that_the_service_runs() -> None:
    locked = re.search(r"^onnxruntime==\S+", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert locked is not None
    files = sorted((ROOT / "tests/benchmarks/serving/peers").glob("*.txt"))
    assert len(files) == 5
    assert [locked[0] in file.read_text().splitlines() for file in files] == [True] * 5


def test_the_run_in_of_a_load() -> None:
    assert Load(name="", times_capacity=5).run_in_s(7) == 7
    assert Load(name="", times_capacity=0.8).run_in_s(7) == 7
    assert Load(name="", times_capacity=0.5).run_in_s(7) == 1
    # A closed loop's: each of the clients has been answered once.
    assert Load(name="", clients=32).run_in_s(7) == 2.5


def measured(**more_rates: tuple[float, float]) -> Measured:
    """Two rounds in which ours makes 24 and 30 masks a second of 25 and 30, and a peer that loses clients."""

    def window(load: Load, rate: float, *, slow: bool) -> Window:
        latencies = [30.0, 40.0, 5000.0 if slow else 50.0]
        return Window(
            figures=Figures(
                offered_per_s=rate, masks_per_s=rate, latencies_ms=latencies, outcomes={OK: 2, GAVE_UP: int(slow)}
            ),
            timing_ms={"decode": 3.0, "queue": 0.5, "infer": 30.0, "encode": 2.0},
            memory_bytes=200_000_000,
            side_cores=1.9,
            client_cores=0.02,
            other_cores=0.01,
            recovery_s=float("nan") if load.times_capacity > 1 and slow else None,
        )

    rates = {"ours": (24.0, 30.0), "litserve": (20.0, 24.0)} | more_rates
    windows = {
        name: {
            load.name: [window(load, rate, slow=name == "litserve") for rate in both for _ in range(load.turns)]
            for load in LOADS
        }
        for name, both in rates.items()
    }
    lone = {"whole": {"masks_per_s": 28.0, "p50_ms": 36.0, "steps_ms": {"decode": 3.0, "infer": 31.0, "encode": 2.0}}}
    at = [{kind: {"masks_per_s": rate} for kind in ("infer", "whole")} for rate in (25.0, 30.0) for _ in range(TURNS)]
    setting = Setting(sessions=2, threads=1, runners=2)
    results = Results(
        best=Best(lone=setting, infer=setting, whole=setting),
        limit={"1 client": [lone] * 2 * TURNS, "8 clients": list(at), "32 clients": list(at)},
        windows=windows,
        agreement=dict.fromkeys(rates, 1.0),
        warm_bytes={name: [190_000_000, 200_000_000] for name in rates},
        ready_s={name: [1.5, 1.7] for name in rates},
        processes=dict.fromkeys(rates, 1) | {"litserve": 5},
        failed={"triton": "it is not installed"},
    )
    plan = Plan(
        sides=tuple(rates),
        rounds=2,
        seconds=8,
        patience_s=5,
        bundle=Path("starter"),
        cores=2,
        settings={},
        folder=Path(),
        photographs=Path(),
    )
    return Measured(plan=plan, results=results, starts=Starts(first_s=1.8, again_s=1.6))


def test_the_tables_by_hand() -> None:
    found = report(measured())
    row = next(line for line in summary(found).splitlines() if "Maskloop" in line)
    # 24 of 25 and 30 of 30: 96 % and 100 %, in the middle 98 %.
    assert "| Maskloop | 40.0 ms | 27.0 (98%), 50 ms |" in row
    assert "195, at most 200 |" in row
    text = everything(found)
    assert "**triton** was not measured: it is not installed" in text
    assert "| 2x | 22.0 | 22.0 | 40.0 | 5000.0 | 5000.0 | gave up: 2 | 200 | 1.90 | not in 15 s |" in text
    assert "| ours | 3.0 | 0.5 | 30.0 | 2.0 | 4.5 | 40.0 |" in text
    assert "The machine was not quiet" not in text
    assert "up to 0.5 cores busy" in everything(found | {"most_other_cores": 0.5})


def test_the_aims_by_hand() -> None:
    seen = {what: (found, enough) for what, found, enough in aims(report(measured()))}
    assert seen["8 clients: 92 % of the limit, inference alone"] == ("98.0%", True)
    assert seen["1 client: p50 within 3 ms of the raw steps"] == ("+4.0 ms", False)
    assert seen["0.8x: p99 ahead of every peer"] == ("50 ms, LitServe 5000 ms", True)
    assert seen["start to ready under 2 s"] == ("1.80 s", True)


def test_overload_is_held_against_the_round_that_it_was_in() -> None:
    run = measured()
    over = run.results.windows["ours"]["5x"]
    for index, rate in enumerate((12.0, 27.0)):
        over[index] = replace(over[index], figures=replace(over[index].figures, masks_per_s=rate))
    # 12 of 24, and 27 of 30.
    assert ("5x: 90 % of the round's peak", "70.0%", False) in aims(report(run))


def test_our_choice_of_a_graph_is_held_against_the_best_peer() -> None:
    rows = aims(report(measured(**{"ours-auto": (36.0, 38.8), "fastapi": (10.0, 12.0)})))
    assert ("as it comes: 1.7 times the best peer's fp32", "1.70 times LitServe", True) in rows


@pytest.mark.parametrize("suits", [True, False])
def test_our_choice_is_a_side_where_it_is_another_graph(suits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.models.precision.has_int8_dot_product", lambda: suits)
    assert ("ours-auto" in default_sides(ROOT / "service" / "starter")) is suits


def test_a_machine_that_gets_nothing_done_has_a_report_too() -> None:
    idle = measured()
    for of_side in idle.results.windows.values():
        for load, windows in of_side.items():
            nothing = Figures(offered_per_s=0, masks_per_s=0, latencies_ms=[], outcomes={})
            of_side[load] = [replace(window, figures=nothing) for window in windows]
    found = report(idle)
    assert "| 0.0 (0%), no answer |" in summary(found)
    assert ("5x: 90 % of the round's peak", "0.0%", False) in aims(found)
    assert "nan," not in everything(found)
    assert svg(found).endswith("</svg>\n")
    assert lone_ms(idle.results.windows["ours"]["1 client"][0]) == float("inf")


def test_the_picture_is_whole() -> None:
    root = ET.fromstring(svg(report(measured())))  # noqa: S314 - ours
    name = "{http://www.w3.org/2000/svg}"
    assert len(root.findall(f"{name}polyline")) == 2 * 3
    assert {"Maskloop", "LitServe"} <= {text.text for text in root.findall(f"{name}text")}


def test_json_has_no_nan() -> None:
    plain: Any = without_nan({"a": [1.0, float("nan")], "b": float("inf")})
    assert plain == {"a": [1.0, None], "b": float("inf")}


def test_text_outside_the_marks_is_kept() -> None:
    text = "before\n<!-- bench-serve -->\nold\n<!-- /bench-serve -->\nafter\n"
    assert between_marks(text, "new\n") == text.replace("old", "new")
    with pytest.raises(ValueError, match="put them where the table belongs"):
        between_marks("before\nafter\n", "new\n")


def test_publish_finds_the_marks_and_the_picture_in_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert f"\n{PICTURE}\n{MARKS[1]}" in page
    assert between_marks(page, "new\n") != page
    assert (PAGE.parent / "serving.svg").is_file()


@pytest.mark.parametrize(("vnni", "choice"), [(False, ()), (True, ("ours-auto",))])
def test_our_own_choice_of_graph_is_a_side_where_it_is_another(
    vnni: bool, choice: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.models.precision.has_int8_dot_product", lambda: vnni)
    assert arguments(["--quick"]).sides == ("ours", *choice, "fastapi", "litserve", "bentoml", "triton")


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (["--bundle", str(tmp_path)], "has no model.onnx"),
        (["--set", "PORT=1"], "MASKLOOP_NAME=VALUE"),
    ):
        with pytest.raises(SystemExit):
            arguments(words)
        assert said in capsys.readouterr().err


def test_each_turn_begins_with_another_and_has_other_arrivals() -> None:
    eight, most = (next(load for load in LOADS if load.name == name) for name in ("8 clients", "5x"))
    assert list(schedule(replace(eight, turns=2), 1, ("ours", "litserve"))) == [
        *((2, "litserve"), (2, "limit"), (2, "ours")),
        *((3, "limit"), (3, "ours"), (3, "litserve")),
    ]
    # No limit beside an open load; one turn a round.
    assert [list(schedule(most, number, ("ours", "litserve"))) for number in (0, 1)] == [
        [(0, "ours"), (0, "litserve")],
        [(1, "litserve"), (1, "ours")],
    ]
    assert list(schedule(most, 0, ())) == []


def wait_for(true: Any) -> None:
    for _ in range(500):
        if true():
            return
        time.sleep(0.01)
    pytest.fail("it did not come about")
