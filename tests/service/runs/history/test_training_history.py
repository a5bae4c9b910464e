"""The trainer's events as points."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

from service.runs.history.training_history import read_history


def write(folder: Path, *events: dict[str, Any], end: str = "") -> None:
    folder.mkdir(parents=True)
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events) + end)


def progress(step: int, loss: float) -> dict[str, Any]:
    return {"event": "progress", "step": step, "loss": loss}


def test_history_is_empty_before_training(tmp_path: Path) -> None:
    history = read_history(tmp_path, 10)
    assert (history.progress, history.evaluations) == ([], [])


def test_steps_repeated_after_an_interruption_count_once(tmp_path: Path) -> None:
    write(
        tmp_path / "train",
        {"event": "start", "step": 0},
        progress(1, 0.9),
        progress(2, 0.8),
        progress(3, 0.7),
        {"event": "start", "step": 1},
        progress(2, 0.6),
        {"event": "evaluation", "step": 2, "miou": 0.5, "per_class": {"road": 0.5}},
        end='{"event": "progress", "st',
    )
    history = read_history(tmp_path, 10)
    assert [(point["step"], point["loss"]) for point in history.progress] == [(1, 0.9), (2, 0.6), (3, 0.7)]
    assert history.evaluations == [{"step": 2, "miou": 0.5, "per_class": {"road": 0.5}}]


def test_points_are_evenly_spaced_with_the_first_and_the_last(tmp_path: Path) -> None:
    write(tmp_path / "train", *(progress(step, 1 / step) for step in range(1, 10_002)))
    steps = [point["step"] for point in read_history(tmp_path, 1000).progress]
    assert (len(steps), steps[0], steps[-1]) == (1000, 1, 10_001)
    assert {b - a for a, b in pairwise(steps)} <= {10, 11}
    assert [point["step"] for point in read_history(tmp_path, 1).progress] == [10_001]


def test_loss_that_is_no_number_is_null(tmp_path: Path) -> None:
    write(tmp_path / "train", progress(1, float("nan")))
    assert read_history(tmp_path, 10).progress == [{"step": 1, "loss": None}]


def test_running_attempt_is_read_until_the_trainer_has_finished(tmp_path: Path) -> None:
    write(tmp_path / "attempt-9" / "train", progress(1, 0.9))
    write(tmp_path / "attempt-10" / "train", progress(1, 0.8))
    assert read_history(tmp_path, 10).progress[0]["loss"] == 0.8
    write(tmp_path / "train", progress(1, 0.7))
    assert read_history(tmp_path, 10).progress[0]["loss"] == 0.7
