"""What clients know about each image: the states that are possible after the answers they got.

A state is ABSENT, UNLABELLED, or the digest of the image's label. An operation without an answer may have been done or
not, so an image can have several possible states; an answer, or a look at the image, reduces them to one.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

ABSENT, UNLABELLED = "absent", "unlabelled"

Outcome = Literal["done", "missing", "unknown"]
"""`missing`: 404. `unknown`: no answer, or an error of the service."""


@dataclass(frozen=True, slots=True)
class Operation:
    """`upload`, `label` with the digest of the mask, or `delete`."""

    name: Literal["upload", "label", "delete"]
    mask: str = ""

    def applied(self, state: str) -> str:
        """Return the state of an image after the operation."""
        if self.name == "delete":
            return ABSENT
        if self.name == "label":
            return ABSENT if state == ABSENT else self.mask
        return UNLABELLED if state == ABSENT else state


@dataclass(slots=True)
class Entry:
    """An image: its possible states, and how often operations changed them."""

    states: frozenset[str] = frozenset({ABSENT})
    before: frozenset[str] = frozenset({ABSENT})
    """Those before the operation in progress, if it is a label or a deletion."""
    changes: int = 0


@dataclass(slots=True)
class Ledger:
    """The images of all clients; thread-safe. `violations` lists answers and states that are impossible."""

    entries: dict[str, Entry] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, image_id: str, operation: Operation) -> None:
        """Record an operation before it is sent: from now on it may have been done."""
        with self._lock:
            entry = self.entries.setdefault(image_id, Entry())
            entry.before = entry.states
            entry.states |= {operation.applied(state) for state in entry.states}
            entry.changes += 1

    def end(self, image_id: str, operation: Operation, outcome: Outcome) -> None:
        """Record the answer to an operation, before the next one on the same image begins, unless both are uploads."""
        with self._lock:
            entry = self.entries[image_id]
            entry.changes += 1
            if outcome == "missing":
                # It was not there before.
                entry.states = entry.before
                self._reduce(image_id, {ABSENT}, f"{operation.name} was answered with 404")
            elif outcome == "done":
                done = {operation.applied(state) for state in entry.states | {ABSENT}}
                # A label that was accepted belongs to an image that exists.
                done -= {ABSENT} if operation.name == "label" else set()
                self._reduce(image_id, done, f"{operation.name} was acknowledged")

    def observe(self, image_id: str, state: str) -> None:
        """Record a state that was seen while no operation on the image was in progress."""
        with self._lock:
            if image_id not in self.entries:
                self.violations.append(f"image {image_id}: nobody has sent it")
                return
            self._reduce(image_id, {state}, f"its state is {state[:12]}")

    def kept(self) -> dict[str, int]:
        """Map the images that certainly exist to their number of changes so far."""
        with self._lock:
            return {name: entry.changes for name, entry in self.entries.items() if ABSENT not in entry.states}

    def unchanged(self, since: dict[str, int]) -> frozenset[str]:
        """Return the images of an earlier `kept` that no operation has touched since."""
        with self._lock:
            return frozenset(name for name, changes in since.items() if self.entries[name].changes == changes)

    def lost(self, image_id: str, what: str) -> None:
        """Record that an image, which certainly exists, was not found."""
        with self._lock:
            self.violations.append(f"image {image_id}: {what}")

    def _reduce(self, image_id: str, states: Iterable[str], why: str) -> None:
        entry = self.entries[image_id]
        left = entry.states & frozenset(states)
        if not left:
            expected = " or ".join(sorted(state[:12] for state in entry.states))
            self.violations.append(f"image {image_id}: {why}, expected {expected}")
            # Reported once.
            left = frozenset(states)
        entry.states = left


def digest(ids: bytes) -> str:
    """Digest of a mask's class ids, uint8 in row-major order."""
    return hashlib.sha256(ids).hexdigest()
