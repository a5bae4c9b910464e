"""The sweep over timm's families: which networks it takes, and what it writes."""

import json
from pathlib import Path

import timm

from tests.benchmarks.encoders.__main__ import main as sweep
from tests.benchmarks.encoders.check import TOO_LARGE, Result
from tests.benchmarks.encoders.families import EXPORTED, family, representatives
from tests.benchmarks.encoders.process import run
from tests.benchmarks.encoders.table import END, START, write_page


def test_names_without_size_and_variant_are_one_family() -> None:
    assert family("swin_tiny_patch4_window7_224") == family("swin_large_patch4_window12_384") == "swin"
    assert family("vit_small_patch16_dinov3") == "vit_dinov"
    names = representatives()
    assert set(EXPORTED) <= set(names) <= set(timm.list_models())
    assert 250 < len(names) < 350


def test_page_has_a_row_for_each_network(tmp_path: Path) -> None:
    page = tmp_path / "encoders.md"
    page.write_text(f"before\n{START}\nold\n{END}\nafter\n")
    results = [
        Result(
            name="b", millions=2.0, kind="Hierarchical", multiple=32, export_s=9.6, equal=1, fused=2, fused_equal=0.9
        ),
        Result(name="a", millions=1.25, error="a: does not fit"),
        Result(name="d", millions=900.0, error=TOO_LARGE),
        Result(name="c", millions=3.0, multiple=32, notes=("runs on tiles",)),
    ]
    write_page(page, results)
    lines = page.read_text().splitlines()
    assert (lines[0], lines[-1], "old" in lines) == ("before", "after", False)
    assert lines[3].startswith("Of 3 networks 2 are built, 1 of them with a note. Of 1 exported networks 0 give equal")
    assert lines[-7:-3] == [
        "| `a` | 1.2 |  |  |  | **refused**: does not fit |",
        "| `b` | 2.0 | 32 | 10 s | 100.000 %, fused 90.000 % |  |",
        "| `c` | 3.0 | 32 |  |  | runs on tiles |",
        "| `d` | 900.0 |  |  |  | not tried: too large |",
    ]


def test_sweep_continues_where_it_stopped(tmp_path: Path) -> None:
    page, results = tmp_path / "encoders.md", tmp_path / "results.json"
    page.write_text(f"{START}\n{END}\n")
    arguments = ["--no-export", "--page", str(page), "--results", str(results), "--only", "levit_128s"]
    assert sweep(arguments) == 0
    found = json.loads(results.read_text())
    assert found["levit_128s"]["kind"] == "Tiled"
    assert "its map at stride 4 is resized from stride 16" in page.read_text()
    found["levit_128s"]["millions"] = 123.4
    results.write_text(json.dumps(found))
    assert sweep(arguments) == 0
    assert "| `levit_128s` | 123.4 |" in page.read_text(), "it is not built again"


def test_network_beyond_the_limit_is_reported() -> None:
    result = run("levit_128s", with_export=True, limit_s=1)
    assert result.error == "not finished within 1 s of CPU time"


def test_fault_of_the_process_is_not_called_a_time_out() -> None:
    result = run("no_such_network", with_export=False, limit_s=60)
    assert result.error == "fault: the process ended with code 1"
