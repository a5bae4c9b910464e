"""The benchmark of shadow releases runs at its smallest size."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.benchmarks import shadow
from tests.benchmarks.serving import photographs
from tests.benchmarks.serving.figures import Figures
from tests.service.tiny_bundle import write_bundle


@pytest.mark.slow
def test_short_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("skimage", reason="scikit-image (extra: demo) is not installed")
    monkeypatch.setattr(photographs, "COUNT", 2)
    bundle = write_bundle(tmp_path / "bundle")
    monkeypatch.setattr(sys, "argv", ["shadow", "--turns=1", "--seconds=0.3", f"--bundle={bundle}"])
    assert shadow.main() == 0
    rows = capsys.readouterr().out.splitlines()[-len(shadow.LOADS) :]
    assert [row.split(" | ")[0] for row in rows] == [f"| {load.name}" for load in shadow.LOADS]


def test_ratios_are_those_of_all_turns() -> None:
    def window(masks_per_s: float, *latencies_ms: float) -> Figures:
        outcomes = {"200": len(latencies_ms)}
        return Figures(offered_per_s=1.0, masks_per_s=masks_per_s, latencies_ms=list(latencies_ms), outcomes=outcomes)

    # A turn without an answer in the window counts in the masks a second.
    without = [window(10, 2, 4, 6), window(10), window(20, 4, 4)]
    with_ = [window(8, 4, 8, 12), window(8), window(16, 8, 8)]
    row = shadow.Windows(without, with_, compared=2).row("1 client").split(" | ")
    assert row[:2] == ["| 1 client", "4 to 8 ms"]
    assert row[2] == "2.00 (2.00 to 2.00)"
    assert row[3:] == ["6 to 12 ms", "2.00 (2.00 to 2.00)", "0.80 (0.80 to 0.80)", "40% |"]
