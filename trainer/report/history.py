"""Read the events of a run (events.jsonl) as series over the steps."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Points = list[tuple[float, float]]
"""(step, value), in the order of the steps."""


@dataclass(frozen=True, slots=True)
class History:
    """Fields of a run's first start event (or empty), number of starts and resumes, fields of other events by step.

    `warnings` are those events by kind, the last of each counts.
    """

    start: dict[str, Any]
    starts: int
    warnings: dict[str, dict[str, Any]]
    progress: dict[int, dict[str, Any]]
    evaluations: dict[int, dict[str, Any]]

    def series(self, name: str) -> Points:
        """Values of a field of the progress events."""
        return [(step, event[name]) for step, event in self.progress.items() if event.get(name) is not None]

    def reliability(self) -> Points:
        """Share of right pixels among the confident ones of the evaluations."""
        return [(step, event["reliability"]) for step, event in self.evaluations.items() if "reliability" in event]

    def miou(self, of: str = "") -> Points:
        """MIoU of the evaluations; `of` selects other evaluated weights, such as "student"."""
        tables = {step: event.get(of, {}) if of else event for step, event in self.evaluations.items()}
        return [(step, table["miou"]) for step, table in tables.items() if "miou" in table]


def read_events(path: Path) -> list[dict[str, Any]]:
    """Events of a run's events.jsonl, if it exists."""
    if not path.exists():
        return []
    events = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:
            continue  # an incomplete line of a killed run
    return events


def build_history(events: Iterable[dict[str, Any]]) -> History:
    """Sort events by kind and step. For a step that was repeated after a resume, the last event counts."""
    starts: list[dict[str, Any]] = []
    warnings: dict[str, dict[str, Any]] = {}
    by_step: dict[str, dict[int, dict[str, Any]]] = {"progress": {}, "evaluation": {}}
    for event in events:
        kind, fields = event.get("event"), {name: value for name, value in event.items() if name != "event"}
        if kind == "start":
            starts.append(fields)
        elif kind == "warning":
            warnings[fields["kind"]] = fields
        elif kind in by_step:
            # A step is evaluated a second time, with more figures, if its weights become the model.
            by_step[kind][fields["step"]] = by_step[kind].get(fields["step"], {}) | fields
    ordered = {kind: dict(sorted(table.items())) for kind, table in by_step.items()}
    return History(starts[0] if starts else {}, len(starts), warnings, ordered["progress"], ordered["evaluation"])
