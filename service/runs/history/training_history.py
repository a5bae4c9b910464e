"""Losses and evaluations of a run, from the events that the trainer wrote to its folder.

They stay in a file: the database keeps a bounded number of events for each run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.runs.history.run_files import training_folder

EVENTS = "events.jsonl"
PROGRESS, EVALUATION = "progress", "evaluation"

Point = dict[str, Any]


@dataclass(frozen=True, slots=True)
class TrainingHistory:
    """Points by step; of a step that was repeated after an interruption, the last."""

    progress: list[Point]
    """Losses and learning rate."""
    evaluations: list[Point]
    """Scores on the validation images."""


def read_history(run_folder: Path, points: int) -> TrainingHistory:
    """Read at most `points` evenly spaced points of each kind, with the first and the last. Empty before training."""
    path = training_folder(run_folder) / EVENTS
    if not path.exists():
        return TrainingHistory([], [])
    offsets = _offsets(path)
    return TrainingHistory(
        _points(path, _decimated(offsets[PROGRESS], points)), _points(path, _decimated(offsets[EVALUATION], points))
    )


def _offsets(path: Path) -> dict[str, dict[int, int]]:
    """Positions in the file by kind and step: a long run has more events than should be in memory."""
    found: dict[str, dict[int, int]] = {PROGRESS: {}, EVALUATION: {}}
    with path.open("rb") as file:
        offset = 0
        for line in file:
            event = _parse(line)
            if event.get("event") in found and isinstance(event.get("step"), int):
                found[event["event"]][event["step"]] = offset
            offset += len(line)
    return found


def _decimated(offsets: Mapping[int, int], points: int) -> list[int]:
    ordered = [offsets[step] for step in sorted(offsets)]
    if len(ordered) <= points:
        return ordered
    if points == 1:
        return ordered[-1:]
    return [ordered[round(number * (len(ordered) - 1) / (points - 1))] for number in range(points)]


def _points(path: Path, offsets: list[int]) -> list[Point]:
    with path.open("rb") as file:
        events = []
        for offset in offsets:
            file.seek(offset)
            events.append(_parse(file.readline()))
    return [{name: value for name, value in event.items() if name != "event"} for event in events]


def _parse(line: bytes) -> Point:
    try:
        # JSON for clients has no NaN and no infinity.
        event = json.loads(line, parse_constant=lambda _: None)
    except ValueError:
        # Incomplete: the trainer was killed, or is writing it.
        return {}
    return event if isinstance(event, dict) else {}
