"""Names and colours of the classes of a model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from unicodedata import normalize

from service.errors import ClassUnknown

MAX_NAMED = 200


@dataclass(frozen=True, slots=True)
class ClassTable:
    """Names and colours (RGB, 0..255) by class id: `names[3]` belongs to pixels with value 3."""

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    ignore_index: int

    def ids(self, texts: Iterable[str]) -> frozenset[int]:
        """Look up classes by name or id; each text holds one, or several separated by commas. Raises ClassUnknown.

        Names may contain commas and digits: a text that equals a name means that class, and names precede ids. All
        Unicode forms of a name are equal. Classes of a model that were merged have one name, which means all of them.
        """
        texts = [normalize("NFC", text) for text in texts]
        known = {str(class_id): {class_id} for class_id in range(len(self.names))}
        named: dict[str, set[int]] = {}
        for class_id, name in enumerate(self.names):
            named.setdefault(normalize("NFC", name), set()).add(class_id)
        known |= named
        parts = (part.strip() for text in texts for part in ([text] if text in known else text.split(",")))
        found = {part: known.get(part, set()) for part in parts}
        unknown = [part for part, class_ids in found.items() if not class_ids]
        if unknown or not found:
            listed = ", ".join(f"{class_id} {name}" for class_id, name in enumerate(self.names[:MAX_NAMED]))
            more = f" and {len(self.names) - MAX_NAMED} more" if len(self.names) > MAX_NAMED else ""
            raise ClassUnknown(
                f"The model has no class {', '.join(map(repr, unknown))}: use names or ids of {listed}{more}."
            )
        return frozenset(class_id for class_ids in found.values() for class_id in class_ids)
