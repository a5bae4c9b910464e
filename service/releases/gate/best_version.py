"""Find the best version so far, which a candidate must match besides the active one.

Otherwise, k promotions that each lose up to the margin could lose k times the margin together.
"""

from __future__ import annotations

import structlog

from service.errors import BundleInvalid
from service.models.bundle import Bundle
from service.models.model_store import ModelStore
from service.releases.gate.class_scopes import IdsOf

log = structlog.stdlib.get_logger(__name__)


def find_best(models: ModelStore, candidate: Bundle, active: Bundle, ids_of: IdsOf) -> Bundle | None:
    """Find the version with the highest recorded mIoU among those that have been active.

    It has the classes of the list that the active model has: otherwise its mIoU was over others. None if it is the
    active one, or there is none.
    """
    wanted = set(ids_of(active.manifest)) - {None}
    for model in models.once_active():
        if model.version == active.manifest.version:
            return None
        try:
            bundle = models.bundle(model.version)
        except BundleInvalid as error:
            log.warning("earlier version is not compared", version=model.version, reason=str(error))
            continue
        if model.version != candidate.manifest.version and set(ids_of(bundle.manifest)) - {None} == wanted:
            return bundle
    return None
