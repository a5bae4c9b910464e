"""Derive the data set's classes from the source's: one background, equal names merged, colours that differ."""

# K classes of the source

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from unicodedata import normalize

import numpy as np
import numpy.typing as npt

from trainer.data.imports.source.annotated import REST, Color, Ids, SourceClass
from trainer.data.imports.source.loss_report import Losses
from trainer.data.imports.source.source_error import SourceError
from trainer.data.readers.voc_class_files import IGNORED_NAME
from trainer.taxonomy import IGNORE, WIDE_IGNORE, Taxonomy, distinct_colors

BACKGROUND = "background"
MAX_CLASSES = REST
REST_IS_BACKGROUND = "pixels that no region covers are the class 'background'"
REST_IS_IGNORED = "pixels that no region covers are ignored"


@dataclass(frozen=True, slots=True)
class ClassPlan:
    """The data set's classes, and how the source's become these.

    Attributes:
        taxonomy: its ignore_index is 255, or 65535 for more than 255 classes.
        id_of: class id or ignore_index by id in a label, uint16 [65536].
        background: id of the class background; None if there is none.
    """

    taxonomy: Taxonomy
    id_of: npt.NDArray[np.uint16]
    background: int | None

    def convert(self, ids_HW: Ids) -> npt.NDArray[np.uint8 | np.uint16]:
        """The mask as it is stored: uint8, or uint16 for more than 255 classes."""
        stored_HW = self.id_of[ids_HW]
        return stored_HW.astype(np.uint8) if self.taxonomy.ignore_index == IGNORE else stored_HW


def plan_classes(
    classes: Sequence[SourceClass], *, rest: str | None, ignored: Iterable[str], losses: Losses
) -> ClassPlan:
    """Derive the classes.

    Args:
        classes: the source's.
        rest: "background" or "ignored": what REST becomes; None if labels have none.
        ignored: names of classes to ignore.
        losses: gets what was decided.

    Raises:
        SourceError: there are no classes, more than a mask can store, or `ignored` has a name that is none.
    """
    names = [class_name(each.name) for each in classes]
    void = _ignored(classes, names, ignored)
    kept = list(dict.fromkeys(name for name, is_void in zip(names, void, strict=True) if not is_void))
    if rest == "background" and BACKGROUND not in kept:
        kept.insert(0, BACKGROUND)
    if not kept:
        raise SourceError("the source has no classes that are not ignored; name them with --classes or --class-names")
    if len(kept) > MAX_CLASSES:
        raise SourceError(f"the source has {len(kept)} classes, and a mask can store {MAX_CLASSES}; import fewer")
    ignore_index = IGNORE if len(kept) <= IGNORE else WIDE_IGNORE
    id_of = np.full(1 << 16, ignore_index, dtype=np.uint16)
    for source_id, (name, is_void) in enumerate(zip(names, void, strict=True)):
        id_of[source_id] = ignore_index if is_void else kept.index(name)
    if rest == "background":
        id_of[REST] = kept.index(BACKGROUND)
    _report(classes, names, rest, losses)
    colors = class_colors(kept, dict(reversed([(name, each.color) for name, each in zip(names, classes, strict=True)])))
    background = kept.index(BACKGROUND) if BACKGROUND in kept else None
    return ClassPlan(Taxonomy(tuple(kept), tuple(colors), ignore_index), id_of, background)


def class_name(name: str) -> str:
    """The name as the data set has it: trimmed, in composed form; any spelling of background is "background"."""
    plain = " ".join(normalize("NFC", name).split())
    return BACKGROUND if plain.strip("_").casefold() == BACKGROUND else plain


def _ignored(classes: Sequence[SourceClass], names: Sequence[str], ignored: Iterable[str]) -> list[bool]:
    wanted = {class_name(name) for name in ignored}
    if unknown := sorted(wanted - set(names)):
        raise SourceError(f"--ignore-class {unknown[0]!r}: is no class; the classes are {', '.join(names)}")
    wanted.add(IGNORED_NAME)
    return [each.ignored or name in wanted for each, name in zip(classes, names, strict=True)]


def _report(classes: Sequence[SourceClass], names: Sequence[str], rest: str | None, losses: Losses) -> None:
    if rest == "background":
        losses.add("background", REST_IS_BACKGROUND, "", remedy="--rest ignored leaves them out of the training")
    elif rest:
        losses.add("background", REST_IS_IGNORED, "")
    seen: set[str] = set()
    for each, name in zip(classes, names, strict=True):
        if name in seen:
            losses.add("duplicate class", "a class occurs twice; both become one", each.name)
        seen.add(name)


def class_colors(names: Sequence[str], given: Mapping[str, Color | None]) -> list[Color]:
    """The given colours, as far as they differ, and free ones of Pascal's palette."""
    taken = {color for name in names if (color := given.get(name))}
    free = _free_colors(taken, len(names))
    colors: list[Color] = []
    for name in names:
        color = given.get(name)
        if name == BACKGROUND and color is None and (0, 0, 0) not in taken:
            color = (0, 0, 0)
        colors.append(color if color and color not in colors else next(free))
    return colors


def _free_colors(taken: set[Color], count: int) -> Iterator[Color]:
    # Without black, which is background's.
    return (color for color in distinct_colors(2 * count + len(taken) + 2)[1:] if color not in taken)
