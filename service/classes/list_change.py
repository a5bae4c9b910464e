"""Make the next version of the class list from the present one and from what a person says about the difference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from typing import Any
from unicodedata import normalize

from service.classes.class_list import ClassHistory, ClassList, Color, ListedClass
from service.classes.class_names import IGNORE, check_colors, clean_names, complete_colors, ignored_value
from service.errors import ClassesInvalid


@dataclass(frozen=True, kw_only=True, slots=True)
class WantedClass:
    """A class of the new list."""

    name: str
    color: Color | None = None
    """None: as before, or drawn."""
    identity: int | None = None
    """Identity of the class that it is, whatever its name was; None: found by name, or a new class."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WantedList:
    """The new list, and what became of classes that it lacks. Names before, except where noted."""

    classes: Sequence[WantedClass]
    renamed: Mapping[str, str] = field(default_factory=dict)
    """New name of a class."""
    merged: Mapping[str, str] = field(default_factory=dict)
    """Name, in the new list, of the class of which a class becomes a part."""
    retired: Sequence[str] = ()
    """Classes that end: their labelled pixels are ignored."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Changes:
    """How a version differs from the one before, by name."""

    renamed: dict[str, str] = field(default_factory=dict)
    recoloured: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    merged: dict[str, str] = field(default_factory=dict)
    """New name of the class of which it is a part now."""
    retired: list[str] = field(default_factory=list)
    restored: list[str] = field(default_factory=list)
    """Classes that had been retired."""


@dataclass(frozen=True, slots=True)
class NextVersion:
    """A new version, before it is stored."""

    classes: ClassList
    changes: Changes
    merged: dict[int, int]
    """Merged classes, by identity: the identity of the class of which they are a part."""


def first_version(wanted: WantedList) -> NextVersion:
    """Make the first version, if there is none. Raises ClassesInvalid."""
    return _next(wanted, None, frozenset(), ClassHistory((), {}))


def next_version(wanted: WantedList, history: ClassHistory) -> NextVersion:
    """Make the version after the present one. Raises ClassesInvalid, which names the remedy."""
    known = {each.identity for listed in history.lists for each in listed.classes}
    return _next(wanted, history.present, frozenset(known), history)


def _next(wanted: WantedList, present: ClassList | None, known: frozenset[int], history: ClassHistory) -> NextVersion:
    old = {each.identity: each for each in present.classes} if present else {}
    before = dict(present.identities) if present else {}
    names = clean_names([each.name for each in wanted.classes], before)
    fates = _Fates(_composed(wanted.renamed), _composed(wanted.merged), [normalize("NFC", n) for n in wanted.retired])
    _check_names(fates, before, names)
    allowed = known.difference(history.merged).union(old)
    found = [_identify(each, name, fates, before, allowed) for each, name in zip(wanted.classes, names, strict=True)]
    new = count(max(known, default=0) + 1)
    identities = [next(new) if each is None else each for each in found]
    after = dict(zip(names, identities, strict=True))
    _check_fates(fates, before, after)
    pairs = zip(wanted.classes, identities, strict=True)
    colors = complete_colors([each.color or (old[i].color if i in old else None) for each, i in pairs])
    classes = tuple(ListedClass(*parts) for parts in zip(identities, names, colors, strict=True))
    check_colors(classes, present)
    ignored = ignored_value(len(classes), present.ignore_index if present else IGNORE)
    return NextVersion(
        ClassList(present.version + 1 if present else 1, classes, ignored),
        _describe(classes, old, known, fates),
        {before[source]: after[target] for source, target in fates.merged.items()},
    )


@dataclass(frozen=True)
class _Fates:
    """What became of classes, names in composed form."""

    renamed: dict[str, str]
    merged: dict[str, str]
    retired: list[str]

    @cached_property
    def _old_names(self) -> dict[str, str]:
        return {new: old for old, new in self.renamed.items()}

    @cached_property
    def sources(self) -> Counter[str]:
        """Names of all classes that change, and how often each is named."""
        return Counter([*self.renamed, *self.merged, *self.retired])

    def old_name(self, name: str) -> str | None:
        """Name of the class that is renamed to this one."""
        return self._old_names.get(name)


def _describe(
    classes: Sequence[ListedClass], old: Mapping[int, ListedClass], known: frozenset[int], fates: _Fates
) -> Changes:
    kept = [(old[each.identity], each) for each in classes if each.identity in old]
    return Changes(
        renamed={before.name: after.name for before, after in kept if before.name != after.name},
        recoloured=[after.name for before, after in kept if before.color != after.color],
        added=[each.name for each in classes if each.identity not in known],
        merged=fates.merged,
        retired=fates.retired,
        restored=[each.name for each in classes if each.identity in known and each.identity not in old],
    )


def _composed(names: Mapping[str, str]) -> dict[str, str]:
    return {normalize("NFC", before): normalize("NFC", after) for before, after in names.items()}


def _repeated(values: Iterable[Hashable]) -> list[Any]:
    return [value for value, times in Counter(values).items() if times > 1]


def _check_names(fates: _Fates, before: Mapping[str, int], names: Sequence[str]) -> None:
    """Check that sources are in the present list, each once, and targets in the new one."""
    if unknown := [name for name in fates.sources if name not in before]:
        raise ClassesInvalid(
            f"`renamed`, `merged` and `retired` name classes of the present list, which lacks {unknown[0]!r}: use "
            f"some of {', '.join(map(repr, before)) or 'none, since there is no list yet'}."
        )
    if twice := _repeated(fates.sources.elements()):
        raise ClassesInvalid(f"The class {twice[0]!r} has several fates: keep one of renamed, merged and retired.")
    listed = set(names)
    if missing := [name for name in [*fates.renamed.values(), *fates.merged.values()] if name not in listed]:
        raise ClassesInvalid(f"`classes` lacks {missing[0]!r}, which `renamed` or `merged` names: add it.")
    staying = set(before).difference(fates.sources)
    if taken := _repeated([*fates.renamed.values(), *staying.intersection(fates.renamed.values())]):
        raise ClassesInvalid(
            f"Several classes would be {taken[0]!r}: one keeps its identity, send the others as `merged`."
        )


def _identify(
    wanted: WantedClass, name: str, fates: _Fates, before: Mapping[str, int], allowed: frozenset[int]
) -> int | None:
    """Find which class this is; None: a new one."""
    source = fates.old_name(name)
    if wanted.identity is None:
        same = None if name in fates.sources else before.get(name)
        return same if source is None else before[source]
    if wanted.identity not in allowed:
        raise ClassesInvalid(
            f"{name!r} has the identity {wanted.identity}, which no class of the present list has, and no retired one: "
            "leave it out for a new class."
        )
    if source is not None and before[source] != wanted.identity:
        raise ClassesInvalid(f"`renamed` and `identity` say different classes for {name!r}: remove one of them.")
    return wanted.identity


def _check_fates(fates: _Fates, before: Mapping[str, int], after: Mapping[str, int]) -> None:
    """Check that each class of the present list is in the new one, or is merged or retired."""
    if twice := _repeated(after.values()):
        both = [name for name, identity in after.items() if identity == twice[0]]
        raise ClassesInvalid(f"{' and '.join(map(repr, both))} are one class: remove one, or its identity.")
    staying, ended = set(after.values()), {*fates.merged, *fates.retired}
    lost = [name for name, identity in before.items() if identity not in staying]
    if unexplained := [name for name in lost if name not in ended]:
        raise ClassesInvalid(
            f"The list lacks {', '.join(map(repr, unexplained))}, and their labels need to know what became of them: "
            'send "renamed": {"OLD": "NEW"}, "merged": {"OLD": "CLASS"} if it is part of another class now, or '
            '"retired": ["OLD"] to ignore its labelled pixels.'
        )
    earlier = set(before.values())
    if kept := [name for name in ended if name not in lost or after.get(name, before[name]) not in earlier]:
        raise ClassesInvalid(f"{kept[0]!r} is merged or retired, and in the list: remove it from one of them.")
