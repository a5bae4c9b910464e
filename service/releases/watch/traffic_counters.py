"""Count inferences, failures and durations by model: in memory, and once a second in the table `traffic`."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.models.activations import newest_activation
from service.releases.watch.latency_histogram import Latencies
from service.storage.tables import Activation, Traffic


@dataclass(slots=True)
class Counts:
    """Inferences of one model."""

    requests: int = 0
    errors: int = 0
    latency: Latencies = field(default_factory=Counter)
    """Successful inferences."""

    def add(self, other: Counts) -> None:
        """Add the counts of another period or process."""
        self.requests += other.requests
        self.errors += other.errors
        self.latency.update(other.latency)

    def since(self, earlier: Counts) -> Counts:
        """Return the counts after an earlier time."""
        return Counts(self.requests - earlier.requests, self.errors - earlier.errors, self.latency - earlier.latency)

    def to_json(self) -> dict[str, Any]:
        """Return the counts as plain data."""
        latency = {":".join(map(str, cell)): count for cell, count in self.latency.items()}
        return {"requests": self.requests, "errors": self.errors, "latency": latency}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Counts:
        """Read what `to_json` returned."""
        latency: Latencies = Counter()
        for cell, count in data["latency"].items():
            size, threads, is_first, bucket = map(int, cell.split(":"))
            latency[size, threads, is_first, bucket] = count
        return cls(data["requests"], data["errors"], latency)


class TrafficCounters:
    """Counts of this process that are not in the table yet, by version. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, Counts] = {}

    def record(self, version: str, counts: Counts) -> None:
        """Add counts of a version."""
        self.put_back({version: counts})

    def take(self) -> dict[str, Counts]:
        """Return the counts since the last call."""
        with self._lock:
            taken, self._counts = self._counts, {}
        return taken

    def put_back(self, counts: dict[str, Counts]) -> None:
        """Add counts, such as those that could not be written."""
        with self._lock:
            for version, each in counts.items():
                self._counts.setdefault(version, Counts()).add(each)


def write_counts(session: Session, counts: dict[str, Counts]) -> None:
    """Add counts to the row of the version's newest activation; of a canary without one, to that in effect."""
    newest = newest_activation(session)
    for version, added in sorted(counts.items()):
        own = session.scalar(select(func.max(Activation.id)).where(Activation.version == version))
        activation_id = own or (newest.id if newest else None)
        if activation_id is not None:
            _add(session, activation_id, version, added)


def read_counts(session: Session, version: str, activations: list[int]) -> Counts:
    """Sum the counts of a version during some activations, its own or others'."""
    total = Counts()
    for activation_id in activations:
        row = session.get(Traffic, (activation_id, version))
        if row is not None:
            total.add(_counts(row))
    return total


def _add(session: Session, activation_id: int, version: str, added: Counts) -> None:
    key = (activation_id, version)
    row = session.get(Traffic, key, with_for_update=True)
    if row is None:
        # Another process may insert it at the same time.
        with suppress(IntegrityError), session.begin_nested():
            session.add(Traffic(activation_id=activation_id, version=version, requests=0, errors=0, latency={}))
        row = session.get_one(Traffic, key, with_for_update=True, populate_existing=True)
    total = _counts(row)
    total.add(added)
    for name, value in total.to_json().items():
        setattr(row, name, value)


def _counts(row: Traffic) -> Counts:
    return Counts.from_json({"requests": row.requests, "errors": row.errors, "latency": row.latency})
