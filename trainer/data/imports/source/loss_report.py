"""Collect what an import lost or decided, grouped by message."""

from dataclasses import dataclass, field
from typing import Any

EXAMPLES = 3
"""Examples that a group keeps."""


@dataclass(slots=True)
class Loss:
    """A group of equal messages.

    Attributes:
        kind: stable identifier for programs, such as "annotation without image".
        message: what became of each, without names: "the annotation has no image and is not imported".
        remedy: what to do about it; "" if nothing.
        count: number of times.
        examples: where it first occurred.
    """

    kind: str
    message: str
    remedy: str = ""
    count: int = 0
    examples: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {name: getattr(self, name) for name in ("kind", "message", "remedy", "count", "examples")}


class Losses:
    """Everything that was lost or decided; not thread-safe: each thread has its own, merged in the images' order."""

    def __init__(self) -> None:
        self._groups: dict[str, Loss] = {}

    def add(self, kind: str, message: str, example: object, *, remedy: str = "", count: int = 1) -> None:
        """Count a message, and keep its first examples."""
        group = self._groups.setdefault(message, Loss(kind, message, remedy))
        group.count += count
        if len(group.examples) < EXAMPLES and (text := str(example)):
            group.examples.append(text)

    def merge(self, other: "Losses") -> None:
        """Add the groups of another."""
        for loss in other.groups():
            group = self._groups.setdefault(loss.message, Loss(loss.kind, loss.message, loss.remedy))
            group.count += loss.count
            group.examples = (group.examples + loss.examples)[:EXAMPLES]

    def groups(self) -> list[Loss]:
        """All groups, in the order of their first occurrence."""
        return list(self._groups.values())
