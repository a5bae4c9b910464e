"""Import an uploaded bundle: unpack it, verify it, run its probe, and store it."""

from __future__ import annotations

from typing import BinaryIO

from service.models.loading import load_model
from service.models.model_store import ModelStore
from service.settings import Settings
from service.storage.tables import Model


def import_upload(models: ModelStore, packed: BinaryIO, settings: Settings) -> Model:
    """Import a zipped bundle. A version that exists is returned; if it had failed, it is ready again.

    Raises:
        BundleInvalid: Not a valid zip or bundle, or its probe failed in this process.
        BodyTooLarge: It unpacks to more than the limit.
        Unavailable: This machine cannot run its probe.
    """
    bundle = models.import_zip(packed)
    try:
        load_model(bundle, settings)
        return models.import_folder(bundle.folder)
    finally:
        models.discard(bundle.folder)
