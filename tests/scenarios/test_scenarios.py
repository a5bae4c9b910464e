"""The logic of the scenarios, without training: parts of the data set, verdicts on counts, faulty bundles, tables."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.models.bundle import read_bundle
from service.models.loading import load_model
from service.settings import Settings
from tests.scenarios.drift_frames import divide
from tests.scenarios.drift_table import failures, table
from tests.scenarios.frames import CAR_PARK, DAY, DUSK, read_frames
from tests.scenarios.gate_draws import Judge
from tests.scenarios.gate_models import ScoredModel
from tests.scenarios.gate_table import errors_table, pairs_table, verdicts_table
from tests.service.releases.gate.simulation import runs
from tests.service.tiny_bundle import COLORS, nearest, picture, write_bundle


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set of empty files: 60 seconds of each sequence, one of them in 15 frames."""
    names = [f"{sequence}{30 * second:05d}" for sequence in ("0001TP_0", "0006R0_f", "0016E5_") for second in range(60)]
    names += [f"0016E5_{30 * 40 + k:05d}" for k in range(2, 30, 2)]
    (tmp_path / "images").mkdir()
    for name in names:
        (tmp_path / "images" / f"{name}.jpg").touch()
    return tmp_path


def test_frames_are_one_a_second_in_stretches_of_video(data: Path) -> None:
    frames = read_frames(data)
    assert len(frames) == 180
    assert len(read_frames(data, every_second=False)) == 194
    assert (frames[7].sequence, frames[7].number, frames[7].group(5)) == (DUSK, 210, "0001TP-001")


@pytest.mark.parametrize("first", [DUSK, CAR_PARK, DAY])
def test_drift_scenario_holds_out_stretches_of_the_other_sequences(data: Path, first: str) -> None:
    found = divide(data, first, 0.5)
    own, others = [*found.labelled, *found.val, *found.usual], [*found.new, *found.new_val, *found.held_out]
    assert sorted([*own, *others]) == sorted(read_frames(data))
    assert {frame.sequence for frame in own} == {first}
    for first_part, second_part in combinations((found.new, found.new_val, found.held_out), 2):
        assert {frame.group(5) for frame in first_part}.isdisjoint(frame.group(5) for frame in second_part)
    assert {frame.group(5) for frame in found.labelled}.isdisjoint(frame.group(5) for frame in found.val)
    # Both in turn.
    assert {frame.sequence for frame in found.new[:4]} == {DUSK, CAR_PARK, DAY} - {first}


def models(tmp_path: Path, gain: float) -> list[ScoredModel]:
    bundle = read_bundle(write_bundle(tmp_path / "bundle"))
    better, worse = next(runs(0, count=1, images=80, gain=gain))
    return [ScoredModel("better", bundle, better), ScoredModel("worse", bundle, worse)]


def test_verdicts_follow_a_large_true_difference(tmp_path: Path) -> None:
    pair = models(tmp_path, 0.2)
    judge = Judge(pair, np.arange(80), ["a", "b"])
    trials = judge.trials([16], 3, lambda *_: None)
    assert [trial.verdicts["better"] for trial in trials] == ["promote", "reject"] * 3
    assert [trial.true_outcome for trial in trials] == ["promote", "reject"] * 3
    assert trials[0].true_difference == -trials[1].true_difference > 0.1
    assert verdicts_table(trials).splitlines()[2] == "| 16 stretches | better | 3 | 100 / 0 / 0 | 100 / 0 / 0 |"
    assert "| 16 stretches | 0 of 3 | 0 of 3 | 0 of 3 | 0 of 3 | 0 of 0 |" in errors_table(trials)
    row = pairs_table([("better", "worse", judge.difference(*pair))], trials, 16).splitlines()[-1]
    assert row.endswith("| 100 / 0 / 0 |")


def test_graph_with_a_fault_passes_its_probe_and_fails_in_traffic(tmp_path: Path) -> None:
    faulty_python = pytest.importorskip("tests.scenarios.faulty_python", reason="the exporter is not installed")
    image = picture(48, 36)
    for name, change in faulty_python.FAULTS.items():
        bundle = write_bundle(tmp_path / name)
        faulty_python.add_fault(bundle, change)
        model = load_model(read_bundle(bundle), Settings(device="cpu"))
        assert (model.engine.run(image).mask_HW == nearest(image, COLORS)).all()
    failing = load_model(read_bundle(tmp_path / "large"), Settings(device="cpu"))
    with pytest.raises(Exception, match="out of data bounds"):
        failing.engine.run(picture(1200, 8))


def results() -> dict[str, Any]:
    """What the drift scenario stores if everything happens as it should."""

    def run(outcome: str, state: str, reason: str = "manual") -> dict[str, Any]:
        release = {"state": state, "reason": "because"}
        return {"run": {"reason": reason, "report": {"outcome": outcome, "sentence": "so."}}, "release": release}

    tests = [{"images": 12, "reference_images": 37, "mmd2": 0.1, "p_value": p, "alarm": p < 0.01} for p in (0.001, 0.3)]
    score = {"images": 9, "units": 3, "before": 0.25, "after": 0.32, "difference": 0.07, "lower": 0.06, "upper": 0.08}
    scores = {"other sequences": {**score, "classes": {"sky": [0.5, 0.75]}}}
    faulty = {"failed_after": 0, "answered_after": 40, "answered_by_faulty": 30, "failed": 4, "requests": 99}
    return {
        "usual": {"tests": tests[1:]},
        "drift": {"tests": tests, "scores": scores, **run("promote", "serving", "drift")},
        "poisoned": {"active": ["a", "a"], **run("reject", "declined")},
        **{name: {**faulty, **run("promote", "withdrawn")} for name in ("failing", "slow")},
    }


def test_drift_table_shows_tests_scores_and_withdrawals() -> None:
    found = results()
    assert failures(found) == []
    text = table(found)
    for row in (
        "| the first sequence | 12 | 37 | 0.1000 | 0.30000 | no |",
        "| the other sequences | 12 | 37 | 0.1000 | 0.00100 | yes |",
        "| other sequences | 9 in 3 stretches | 25.0 | 32.0 | +7.0 | +6.0 to +8.0 |",
        "| poisoned | manual | reject | declined | so. |",
        "| failing | 30 | 4 of 99 | 0 of 40 | because |",
    ):
        assert row in text


def test_drift_scenario_names_what_went_wrong() -> None:
    found = results()
    found["usual"]["tests"][0]["alarm"] = True
    found["drift"]["release"]["state"] = "asked"
    found["drift"]["scores"] = {}
    found["slow"]["release"]["state"] = "serving"
    assert failures(found) == [
        "usual traffic raised an alarm",
        "the retrained model does not serve",
        "it is not shown to be better on the other sequences",
        "the slow model was not withdrawn",
    ]
