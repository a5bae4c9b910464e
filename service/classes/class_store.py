"""The versions of the class list in the database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from unicodedata import normalize

import structlog
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from service.classes.class_list import ClassHistory, ClassList, Color, ListedClass
from service.classes.list_change import NextVersion, WantedList, first_version, next_version
from service.errors import ClassesChanged, ClassesNotFound
from service.storage.database import Database
from service.storage.tables import ClassListRow, Model, Pool

log = structlog.stdlib.get_logger(__name__)


class ClassStore:
    """Reads and adds versions; keeps those that it has read, since they never change."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._history: ClassHistory | None = None

    def newest(self) -> int | None:
        """Number of the present version; None: there is none yet, or it waits for `define`."""
        with self._database.read() as session:
            return newest_version(session)

    def history(self) -> ClassHistory | None:
        """Read all versions; None: there is none yet, or the first one waits for `define`."""
        known = self._history
        with self._database.read() as session:
            newest = newest_version(session)
            if known is None or newest != known.present.version:
                rows = session.scalars(select(ClassListRow).order_by(ClassListRow.version)).all()
                known = _read(rows) if newest is not None else None
        self._history = known
        return known

    def row(self, version: int) -> ClassListRow:
        """Get the row of a version. Raises ClassesNotFound."""
        with self._database.read() as session:
            row = session.get(ClassListRow, version)
        if row is None or row.classes is None:
            raise ClassesNotFound(f"There is no version {version} of the class list: GET /v1/classes has the present.")
        return row

    def waiting_model(self) -> str | None:
        """The model version from which a migration wants the first list to be taken; None: any."""
        with self._database.read() as session:
            first = session.get(ClassListRow, 1)
            return first.model if first is not None and first.classes is None else None

    def define(self, names: Sequence[str], colors: Sequence[Color], ignore_index: int, model: str) -> None:
        """Add the first version, with the classes of a model, unless there is one."""
        with self._database.write() as session:
            _lock(session)
            first = session.get(ClassListRow, 1) or ClassListRow(version=1)
            if first.classes is not None:
                return
            unique = zip(range(1, len(names) + 1), _distinct(names), colors, strict=True)
            first.model, first.ignore_index = model, ignore_index
            first.classes = [asdict(ListedClass(*parts)) for parts in unique]
            session.add(first)
        log.info("class list taken from a model", version=1, model=model, classes=len(names))

    def change(self, wanted: WantedList, derived_from: int, key_name: str | None) -> ClassList:
        """Add the next version. Raises ClassesChanged if `derived_from` (0: none) is not the present one.

        Raises ClassesInvalid for a list that cannot be used.
        """
        with self._database.write() as session:
            # Labels and snapshots wait, so that a snapshot has no label of a newer version than its own.
            _lock(session)
            newest = newest_version(session) or 0
            if newest != derived_from:
                raise ClassesChanged(
                    f"The class list was derived from version {derived_from}, and the present one is {newest}: GET "
                    "/v1/classes, make your changes to it, and send it again."
                )
            rows = session.scalars(select(ClassListRow).order_by(ClassListRow.version)).all()
            made = next_version(wanted, _read(rows)) if newest else first_version(wanted)
            # They are known by the names of the list that was present when they came.
            session.execute(update(Model).where(Model.classes_version.is_(None)).values(classes_version=newest or 1))
            session.add(_row(made, key_name))
        log.info("class list changed", version=made.classes.version, classes=len(made.classes), key=key_name)
        return made.classes


def newest_version(session: Session) -> int | None:
    """Number of the present version; None: there is none yet, or it waits for `ClassStore.define`."""
    return session.scalar(select(func.max(ClassListRow.version)).where(ClassListRow.ignore_index.is_not(None)))


def _lock(session: Session) -> None:
    session.execute(select(Pool).with_for_update()).one()


def _row(made: NextVersion, key_name: str | None) -> ClassListRow:
    return ClassListRow(
        version=made.classes.version,
        key_name=key_name,
        ignore_index=made.classes.ignore_index,
        classes=[asdict(each) for each in made.classes.classes],
        changes=asdict(made.changes),
        merged={str(source): target for source, target in made.merged.items()},
    )


def _read(rows: Sequence[ClassListRow]) -> ClassHistory:
    lists = tuple(ClassList(row.version, _classes(row), int(row.ignore_index or 0)) for row in rows)
    return ClassHistory(lists, {int(source): target for row in rows for source, target in row.merged.items()})


def _classes(row: ClassListRow) -> tuple[ListedClass, ...]:
    return tuple(
        ListedClass(each["identity"], each["name"], (each["color"][0], each["color"][1], each["color"][2]))
        for each in row.classes or ()
    )


def _distinct(names: Sequence[str]) -> list[str]:
    """Names in composed form; a repeated one gets a number."""
    distinct: dict[str, None] = {}
    for name in (normalize("NFC", each) for each in names):
        number, free = 1, name
        while free in distinct:
            number += 1
            free = f"{name} {number}"
        distinct[free] = None
    return list(distinct)
