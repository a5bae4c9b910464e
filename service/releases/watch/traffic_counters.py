"""Count inferences, failures and durations by model: in memory, and once a second in the table `traffic`."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.models.activations import newest_activation
from service.releases.watch.latency_histogram import bucket_of
from service.storage.tables import Activation, Traffic


@dataclass(slots=True)
class Counts:
    """Inferences of one model."""

    requests: int = 0
    errors: int = 0
    latency: Counter[int] = field(default_factory=Counter)
    """Successful inferences by bucket of their duration."""

    def add(self, other: Counts) -> None:
        """Add the counts of another period or process."""
        self.requests += other.requests
        self.errors += other.errors
        self.latency.update(other.latency)


class TrafficCounters:
    """Counts of this process that are not in the table yet, by version. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, Counts] = {}

    def record(self, version: str, seconds: float | None, images: int = 1) -> None:
        """Count inferences that took so long each; None: they failed."""
        found = Counts(images, images) if seconds is None else Counts(images, 0, Counter({bucket_of(seconds): images}))
        self.put_back({version: found})

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
            total.add(read_row(row))
    return total


def read_row(row: Traffic) -> Counts:
    """Return the counts of a row."""
    return Counts(row.requests, row.errors, Counter({int(bucket): count for bucket, count in row.latency.items()}))


def _add(session: Session, activation_id: int, version: str, added: Counts) -> None:
    row = session.get(Traffic, (activation_id, version), with_for_update=True)
    if row is None:
        row = Traffic(activation_id=activation_id, version=version, requests=0, errors=0, latency={})
        session.add(row)
    total = read_row(row)
    total.add(added)
    row.requests, row.errors = total.requests, total.errors
    row.latency = {str(bucket): count for bucket, count in total.latency.items()}
