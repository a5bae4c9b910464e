"""What the pixel values of a mask mean."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from service.errors import ClassUnknown

# Classes that a message names: all that the usual data sets have.
LISTED = 200


@dataclass(frozen=True, slots=True)
class ClassTable:
    """Names and colours (RGB, 0..255) by class id: `names[3]` is the class whose pixels are 3."""

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    ignore_index: int

    def ids(self, asked: Iterable[str]) -> frozenset[int]:
        """The classes that texts name, each by one name or id, or by several between commas.

        A text that is a name as a whole is that one, and a name goes before an id: names may hold commas and digits.

        Raises:
            ClassUnknown: One of them is neither; the message lists the classes.
        """
        known = {name: class_id for class_id, name in reversed(list(enumerate(self.names)))}
        known = {str(class_id): class_id for class_id in range(len(self.names))} | known
        parts = (part.strip() for text in asked for part in ([text] if text in known else text.split(",")))
        found = {part: known.get(part) for part in parts}
        unknown = [part for part, class_id in found.items() if class_id is None]
        if unknown or not found:
            listed = ", ".join(f"{class_id} {name}" for class_id, name in enumerate(self.names[:LISTED]))
            more = f" and {len(self.names) - LISTED} more" if len(self.names) > LISTED else ""
            raise ClassUnknown(
                f"No class is called {', '.join(map(repr, unknown))}: name some of {listed}{more}, by name or id."
            )
        return frozenset(class_id for class_id in found.values() if class_id is not None)
