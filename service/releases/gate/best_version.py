"""Find the best version so far, which a candidate must match besides the active one.

Otherwise, k promotions that each lose up to the margin could lose k times the margin together.
"""

from __future__ import annotations

import structlog

from service.errors import BundleInvalid
from service.models.bundle import Bundle
from service.models.model_store import ModelStore
from service.releases.gate.judge import class_names

log = structlog.stdlib.get_logger(__name__)


def find_best(models: ModelStore, candidate: Bundle, active: Bundle) -> Bundle | None:
    """Find the version with the highest recorded mIoU among those that have been active and have the same classes.

    None if it is the active one, or there is none.
    """
    for model in models.once_active():
        if model.version == active.manifest.version:
            return None
        try:
            bundle = models.bundle(model.version)
        except BundleInvalid as error:
            log.warning("earlier version is not compared", version=model.version, reason=str(error))
            continue
        if model.version != candidate.manifest.version and class_names(bundle) == class_names(candidate):
            return bundle
    return None
