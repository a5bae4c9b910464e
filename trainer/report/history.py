"""What a run said while it went on: events.jsonl as series over the steps."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Points = list[tuple[float, float]]
"""(step, value), in the order of the steps."""


@dataclass(frozen=True, slots=True)
class History:
    """A run's events, put in order.

    Attributes:
        start: the first start event's fields; empty when there is none.
        starts: how often the run was started or taken up again.
        progress: figures by step.
        evaluations: scores by step.
    """

    start: dict[str, Any]
    starts: int
    progress: dict[int, dict[str, Any]]
    evaluations: dict[int, dict[str, Any]]

    def series(self, name: str) -> Points:
        """A figure of the progress events."""
        return [(step, event[name]) for step, event in self.progress.items() if event.get(name) is not None]

    def miou(self, of: str = "") -> Points:
        """The evaluations' mIoU; `of` names another set of weights that was judged with them, such as "student"."""
        tables = {step: event.get(of, {}) if of else event for step, event in self.evaluations.items()}
        return [(step, table["miou"]) for step, table in tables.items() if "miou" in table]


def read_events(path: Path) -> list[dict[str, Any]]:
    """The events of a run's events.jsonl; none when there is no such file."""
    if not path.exists():
        return []
    events = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:
            continue  # a run that was killed leaves half a line, and --resume writes on
    return events


def history(events: Iterable[dict[str, Any]]) -> History:
    """Put events in order: of a step that was run again after a resume, the last word counts."""
    starts: list[dict[str, Any]] = []
    by_step: dict[str, dict[int, dict[str, Any]]] = {"progress": {}, "evaluation": {}}
    for event in events:
        kind, fields = event.get("event"), {name: value for name, value in event.items() if name != "event"}
        if kind == "start":
            starts.append(fields)
        elif kind in by_step:
            # The same step is judged twice when its weights turn out to be the ones that are kept.
            by_step[kind][fields["step"]] = by_step[kind].get(fields["step"], {}) | fields
    ordered = {kind: dict(sorted(table.items())) for kind, table in by_step.items()}
    return History(starts[0] if starts else {}, len(starts), ordered["progress"], ordered["evaluation"])
