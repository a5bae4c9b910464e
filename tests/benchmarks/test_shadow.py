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


def test_ratios_are_those_of_the_turns() -> None:
    def window(masks_per_s: float, *latencies_ms: float) -> Figures:
        outcomes = {"200": len(latencies_ms)}
        return Figures(offered_per_s=1.0, masks_per_s=masks_per_s, latencies_ms=list(latencies_ms), outcomes=outcomes)

    without = [window(10, 1, 2, 3), window(10, 4), window(20, 10)]
    with_ = [window(9, 4), window(10, 4), window(30, 5, 5)]
    row = shadow.Windows(without, with_, compared=3).row("1 client")
    assert row == "| 1 client | 4.0 ms | 1.000 (0.50 to 2.00) | 0.512 (10 to 5 ms) | 1.000 (0.90 to 1.50) | 75% |"
