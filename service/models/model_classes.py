"""The class list of the service and the classes of its models.

The first list has the classes of the active model; later ones are made by people. A model's classes are known by their
names in the list for which it was trained or, if it came from elsewhere, in the list that was present when it came.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import structlog

from service.classes.class_list import ClassHistory, ClassList
from service.classes.class_store import ClassStore
from service.classes.list_change import WantedList
from service.errors import MaskloopError, NoModel
from service.models.bundle import Manifest
from service.models.loading import LoadedModel
from service.segmentation.output.class_table import ClassTable
from service.storage.tables import Model

log = structlog.stdlib.get_logger(__name__)

NOT_LISTED = " (not listed)"


@dataclass(frozen=True, slots=True)
class ModelClasses:
    """Relates the classes of models to the list. Thread-safe."""

    lists: ClassStore
    activated: Callable[[], Model | None]
    """Returns the version to serve."""
    model: Callable[[str], Model]
    """Returns the row of a version, or raises ModelNotFound."""
    manifest: Callable[[str], Manifest]
    """Reads the manifest of a version, or raises."""

    def history(self) -> ClassHistory:
        """Read all versions of the list; the first is taken from the active model if there is none.

        Raises NoModel without a list and an active model, or BundleInvalid.
        """
        found = self.lists.history()
        if found is not None:
            return found
        activated = self.activated()
        version = self.lists.waiting_model() or (activated.version if activated else None)
        if version is None:
            raise NoModel(
                "There is no class list yet, and no active model from which to take it: PUT /v1/classes, or upload a "
                "model (POST /v1/models) and activate it."
            )
        manifest = self.manifest(version)
        names, colors = [each.name for each in manifest.classes], [each.color for each in manifest.classes]
        self.lists.define(names, colors, manifest.ignore_index, version)
        return self.history()

    def take_first(self) -> None:
        """Take the first list from the active model, if there is none: another model may be active later."""
        try:
            self.history()
        except NoModel:
            return
        except MaskloopError as error:
            log.warning("the class list cannot be taken from the active model", reason=str(error))

    def present(self) -> ClassList:
        """Read the present version. Raises as `history`."""
        return self.history().present

    def change(self, wanted: WantedList, derived_from: int, key_name: str | None) -> ClassList:
        """Add a version. Raises ClassesInvalid, ClassesChanged or BundleInvalid."""
        if self.lists.newest() is None and (self.activated() or self.lists.waiting_model()):
            # The list from which the new one is derived.
            self.history()
        return self.lists.change(wanted, derived_from, key_name)

    def identities(self, manifest: Manifest) -> list[int | None]:
        """Identities of the classes of a version, by id. Raises as `history`, and ModelNotFound."""
        known_by = self.model(manifest.version).classes_version
        return self.history().identify([each.name for each in manifest.classes], known_by)

    def ids_in(self, manifest: Manifest, target: ClassList) -> list[int | None]:
        """Ids in a list of the classes of a version, by their ids in the model; None: it has no such class."""
        history = self.history()
        return [history.find_id(identity, target) for identity in self.identities(manifest)]

    def listed(self, manifest: Manifest) -> list[int | None]:
        """Ids in the present list of the classes of a version. Raises as `identities`."""
        return self.ids_in(manifest, self.present())

    def names_in(self, manifest: Manifest, target: ClassList) -> dict[str, list[str]]:
        """Names in the model of the classes of a list, by their names there; without classes that it has not."""
        found: dict[str, list[str]] = {}
        for entry, position in zip(manifest.classes, self.ids_in(manifest, target), strict=True):
            if position is not None:
                found.setdefault(target.names[position], []).append(entry.name)
        return found

    def table(self, manifest: Manifest) -> ClassTable:
        """Present names and colours of the classes of a version, by its ids; its own for one that ended.

        Raises as `identities`.
        """
        present = self.present()
        own = [(entry.name, entry.color) for entry in manifest.classes]
        taken = set(present.names)
        shown = [
            (present.classes[position].name, present.classes[position].color)
            if position is not None
            else (name + NOT_LISTED * (name in taken), color)
            for (name, color), position in zip(own, self.ids_in(manifest, present), strict=True)
        ]
        return ClassTable(tuple(name for name, _ in shown), tuple(color for _, color in shown), manifest.ignore_index)

    def shown(self, loaded: LoadedModel) -> LoadedModel:
        """Return a loaded model with the present names and colours; with its own if these cannot be read."""
        try:
            version = self.present().version
            return replace(loaded, class_table=self.table(loaded.bundle.manifest), classes_version=version)
        except MaskloopError as error:
            log.warning("model serves with its own class names", version=loaded.version, reason=str(error))
            return loaded

    def follow(self, models: Sequence[LoadedModel]) -> list[LoadedModel]:
        """Return loaded models with the present names and colours; the same objects if these have not changed."""
        newest = self.lists.newest() if models else None
        return [each if newest in (None, each.classes_version) else self.shown(each) for each in models]
